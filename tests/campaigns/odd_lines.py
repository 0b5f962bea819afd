"""Tables of what hardly anybody means on a command line, for `command_lines`."""

from tests.campaigns.odd_values import HALF

# fmt: off
# Numbers that no flag of ours may have.
NEVER = (
    "nan", "inf", "-inf", "1e400", "100000000000000000000", "-1", "-5", "-1e-9",
    "-9223372036854775808",
)
# Texts for flags that have a grammar of their own, none of which is right.
GRAMMARS = {
    "checkpoint": (
        "²", "\u0661", "-1", "0x4", "last:", "last:0", "last:²", "last:99", "last:-1", "best:2",
        "", "9" * 5000, "last:" + "9" * 5000, "1.5", "BEST", " best", HALF, "7", "1_0", "../2",
    ),
    "topology": (
        "cpu:100000000", "cpu:0", "cpu:²", "cpu:-1", "cpu:", "cpu", "cpu:1x2", "cpu:8:8",
        "gpu:1", "tpu", "v5e", "v5e:2", "v5e:0x0", "v9:2x2", HALF, "", " ", "cpu:" + "9" * 5000,
        "v5e:99999x99999", "cpu: 1", "CPU:1", "cpu:1_0", "cpu:20000",
    ),
    "tokens": (
        "²", "1X", "-1T", "0", "nan", "inf", "1e400", "1e400T", "", " ", "9" * 400, "1 T x",
        HALF,
    ),
    "mfu": (
        "", "²", "nan", "inf", "0", "-0.1", "1.1", "0.1,0.2,0.3", "a,b", "0.3,", "1e400", HALF,
    ),
    "shard": (
        "0", "1/1", "-1/2", "\xb2/\u0663", "0/0", "1/", "/", "a/b", "0/9e9", "9" * 5000 + "/1",
        HALF,
    ),
    "grid": (
        "", "x", "=", "model.width", "model.width=", "model.width=wide", "model.width=²",
        "a.b=1", "model.width=1,,2", "train.seed=-1", "train.seed=1e400",
        "optimizer.learning_rate=nan", HALF, "model.num_layers=0", "train.log_every=0",
        "model.name=t5", "task.search.kind=wu", "model=1", "train.seed=99999999999999999999",
        "task.stop_ids=1,2", "train.duration=1e400 steps",
    ),
    "space": (
        "", "x", "=", "train.seed=log(0,1)", "optimizer.learning_rate=log(1,2,3)", "a=choice()",
        "optimizer.learning_rate=log(nan,1)", "optimizer.learning_rate=uniform(2,1)", HALF,
        "optimizer.learning_rate=uniform(0,inf)", "optimizer.learning_rate=uniform(-1,1)", "²",
        "train.seed=uniform(0,99999999999999999999)", "model.width=choice(16,0)",
        "model=log(1,2)",
    ),
    "sweep": (
        "missing", "²", "a,,b", HALF, "__class__",
    ),
    "search": (
        "Optuna", "²", "grid", HALF, " ",
    ),
    "sampler": (
        "", "TPE", "²", HALF,
    ),
    "pruner": (
        "", "None", "²", HALF,
    ),
    "vectorize": (
        "", "Vmap", "²", HALF, "threads",
    ),
    "coordinator": (
        "", "x", "localhost", "localhost:", "localhost:x", "localhost:99999", ":1", "²:²", HALF,
    ),
    "pooling": (
        "", "x", "mean,", "mean,x", "²", HALF, "mean,mean",
    ),
    "dtype": (
        "", "float64", "FLOAT32", "²", HALF,
    ),
    "too_long": (
        "", "cut", "²", HALF,
    ),
    "prompt_name": (
        "x", "²", HALF,
    ),
    "storage": (
        "x", "²", "sqlite:////proc/x.db", "mysql://", "://", HALF,
    ),
}
TEXT_FLAGS = (
    "prompt", "stop", "ignore",
)
WORKDIRS = (
    "file", "file/below", "loop", "loop/below", "x" * 300, "y/" + "x" * 300, "x/" * 3000,
    "/proc/x", "/proc/self/x", "/proc", "/dev/null", "/dev/null/x", "/sys/x", "", "dir", HALF,
    "nowhere", "a\nb", "/", "dangling", "dangling/x", "texts", "/proc/self/mem", "/etc/passwd",
)
# Those that can be made, or are not looked at.
ACCEPTED = (
    "dir", "nowhere", "a\nb", "",
)
ARGUMENTS = (
    "--workdri=x", "--unknown", "--unknown=1", "-x", "--", "word", HALF, "--caf\udce9=1", "--=",
    "-", "--workdir", "--config", "--noworkdir", "--json=maybe", "--nojson=1", "--nojson=false",
    "²", "--flagfile=missing", "--flagfile=", "--flagfile=/", "--config.model", "--config.",
    "--config..x=1", "--config.model.width", "--config.model=3", "--config.model={}",
    "--config.model=None", "--config.x=1", "--config.model.width.x=1",
    "--config.model['width']=3", "--config.model[0]=1", "--config.²=1", "--noconfig.model.width",
    "--noconfig.model.tie_embeddings=1", "--config.model.name=t5", "--config=",
    "--config.model.name=", "--config.task.name=²", "--config.model.wïdth=1",
    "--config.caf\udce9=1", "--config.model.width=1 2", "--config.a.b.c.d.e=1",
    "--config.model.width=8=8", "--workdir==", "--json --json", "---json",
    "--config.train=ConfigDict()", "--config.task.search=3", "--x" * 2000,
    "--config.task.search={}", "--config.model.__class__=1", "--config.model.lock=1",
    "--config.items=1",
)
RAISED = (
    "ValueError('no')", "TypeError('no')", "RecursionError", "KeyError('x')", "OSError(5, 'no')",
    "SystemExit", "SystemExit(0)", "SystemExit('no')", "MemoryError", "Exception()",
    "StopIteration", "AssertionError", "UnicodeError('x')", "BaseException('no')", "GeneratorExit",
    "ImportError('x')",
)
RETURNED = (
    "", "None", "3", "'text'", "{}", "[]", "get_config", "object()", "float('nan')", "range(3)",
)
# fmt: on


def _changed(line: str) -> str:
    """The text of a config file with one line that is wrong."""
    return (
        "from configs import gpt_char\n\ndef get_config(variant=''):\n"
        f"    config = gpt_char.get_config()\n    {line}\n    return config\n"
    )


# Config files that are broken: in which way, and their content.
FILES: dict[str, str | bytes | None] = {
    "is empty": "",
    "is missing": None,
    "does not end": "def get_config(:\n",
    "is indented wrongly": "def get_config():\nreturn 3\n",
    "is binary": bytes(range(256)),
    "is not UTF-8": b"x = 'caf\xe9'\ndef get_config(): pass\n",
    "has a byte 0": b"x = 1\0\n",
    "is JSON": '{"model": null}',
    "is prose": "This is my config, see the paper.\n",
    "has no get_config": "config = 3\n",
    "has a get_config that is none": "get_config = 3\n",
    "takes no variant": "def get_config():\n    return 3\n",
    "takes three": "def get_config(a, b, c):\n    return 3\n",
    "imports what is not there": "import nonsense_that_is_not_there\n",
    "imports from what is not there": "from configs import nonsense\n",
    "nests too deep": "x = " + "[" * 5000 + "\n",
    "has a number too long": "x = " + "9" * 5000 + "\n",
    "recurses": "def get_config(variant=''):\n    return get_config(variant)\n",
    "reads a file that is not there": "def get_config(): return open('/not/there').read()\n",
    "reads a folder": "def get_config(): return open('/').read()\n",
    "lacks sections": "from ml_collections import ConfigDict\nget_config = ConfigDict\n",
    "has a section of another type": _changed("del config.model; config.model = 3"),
    "has a section of names": _changed("del config.train; config.train = ('a',)"),
    "has a section too many": _changed("config.modle = config.model"),
    "has no name of a model": _changed("del config.model.name"),
    "has a model that is not there": _changed("config.model.name = 'gtp'"),
    "has an empty name": _changed("config.model.name = ''"),
    "has a field too many": _changed("config.model.widht = 3"),
    "has a path of a byte 0": _changed("config.task.path = 'a\\0b'"),
    "has an array": _changed("import numpy; config.model.width = numpy.ones(3)"),
    "lacks a field": _changed("del config.model.width"),
}
FILES |= {f"raises {one}": f"def get_config(variant=''):\n    raise {one}\n" for one in RAISED}
FILES |= {f"raises {one} at once": f"raise {one}\n" for one in RAISED}
FILES |= {f"returns {one}": f"def get_config(variant=''):\n    return {one}\n" for one in RETURNED}
