"""Tasks: the data, loss and metrics of each job. A file's name is `config.task.name`."""
