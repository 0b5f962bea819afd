"""What differs between jobs: data, loss and metrics. The file's name is `config.task.name`."""
