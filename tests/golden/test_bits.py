"""Whether the tiny runs whose bits are compared are of all tasks."""

from tests.campaigns.jobs import JOBS
from tests.golden.snapshots import config_of
from transformer import tasks
from transformer.sections import plugin_names


def test_every_task_has_a_job():
    configs = [job.config.replace(".py", "") for job in JOBS if "{base}" not in job.config]
    assert {config_of(name).task.name for name in configs} == set(plugin_names(tasks))
