"""What makes a shell complete the commands, flags and configs of `transformer`.

The text that is written holds all names: completing starts no Python.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence

from transformer.commands import Command, Flag, shipped_configs, variants

# Flags without a value.
_SWITCHES = ("bool", "boolean")

_BASH = """\
# Completes `transformer` in bash. In ~/.bashrc:  eval "$(transformer completion bash)"
_transformer() {{
    local word="${{COMP_LINE:0:COMP_POINT}}" seen="${{COMP_WORDS[COMP_CWORD]}}"
    local flags="" values="" words="" each
    word="${{word##* }}"
    # Bash takes = and : for ends of words: what it replaces is only what follows them.
    [[ $seen == [=:]* ]] && seen=""
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    (( COMP_CWORD == 1 )) && words={commands}
    COMPREPLY=()
    while IFS= read -r each; do
        [[ -z $each ]] && continue
        [[ -d ${{each#*=}} ]] && each+=/
        [[ $each == *[=/] ]] || each+=" "
        COMPREPLY+=("${{each#"${{word%"$seen"}}"}}")
    done < <(
        case "$word" in
            (--config=*:*) compgen -W {variants} -- "$word" ;;
            (--*=*)
                compgen -W "$values" -- "$word"
                compgen -P "${{word%%=*}}=" -f -- "${{word#*=}}"
                ;;
            (-*) compgen -W "$flags" -- "$word" ;;
            (*)
                compgen -W "$words" -- "$word"
                [[ $words ]] || compgen -f -- "$word"
                ;;
        esac
    )
}}
complete -o nospace -F _transformer transformer
"""

_ZSH = """\
# Completes `transformer` in zsh. In ~/.zshrc, after compinit:  eval "$(transformer completion zsh)"
_transformer_config() {{
    if [[ $PREFIX == *:* ]]; then
        compadd -- {variants}
    else
        compadd -- {configs}
        _files -g '*.py'
    fi
}}
_transformer() {{
    local -a commands=({commands})
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    shift words
    (( CURRENT-- ))
    case $words[1] in
{cases}
    esac
}}
compdef _transformer transformer
"""


def bash(commands: Sequence[Command]) -> str:
    """The completion for bash."""
    cases = {command.name: _bash_case(command) for command in commands}
    cases["completion"] = f"words={_words(SHELLS)}"
    return _BASH.format(
        cases=_cases(cases),
        commands=_words(cases),
        variants=_words(f"--config={name}" for name in _with_variants()),
    )


def zsh(commands: Sequence[Command]) -> str:
    """The completion for zsh, which shows what each name means."""
    cases = {
        command.name: " ".join(["_arguments", *map(_zsh_flag, command.flags), "'*:file:_files'"])
        for command in commands
    }
    cases["completion"] = f"compadd -- {' '.join(SHELLS)}"
    titles = {command.name: command.title for command in commands}
    titles["completion"] = "Writes what completes these commands in a shell."
    return _ZSH.format(
        cases=_cases(cases),
        commands=shlex.join(f"{name}:{title}" for name, title in titles.items()),
        configs=shlex.join(_paths()),
        variants=shlex.join(_with_variants()),
    )


SHELLS = {"bash": bash, "zsh": zsh}


def _bash_case(command: Command) -> str:
    flags = [f"--{flag.name}" + "=" * (flag.kind not in _SWITCHES) for flag in command.flags]
    values = [f"--{flag.name}={choice}" for flag in command.flags for choice in _choices(flag)]
    return f"flags={_words([*flags, '--help'])} values={_words(values)}"


def _zsh_flag(flag: Flag) -> str:
    meaning = "".join(f"\\{letter}" if letter in "[]:" else letter for letter in flag.meaning)
    if flag.kind in _SWITCHES:
        return shlex.quote(f"--{flag.name}[{meaning}]")
    action = "_files"
    if flag.kind == "config_file":
        action = "_transformer_config"
    elif flag.choices:
        action = f"({' '.join(flag.choices)})"
    return shlex.quote(f"--{flag.name}=[{meaning}]:{flag.name}:{action}")


def _choices(flag: Flag) -> Iterable[str]:
    return _paths() if flag.kind == "config_file" else flag.choices


def _paths() -> list[str]:
    return [f"configs/{name}.py" for name in shipped_configs()]


def _with_variants() -> list[str]:
    return [
        f"configs/{name}.py:{variant}"
        for name, path in shipped_configs().items()
        for variant in variants(path)
    ]


def _words(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def _cases(commands: Mapping[str, str]) -> str:
    return "\n".join(f"        {name}) {what} ;;" for name, what in commands.items())
