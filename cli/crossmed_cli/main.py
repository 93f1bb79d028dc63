"""Entry point: a click group that imports a command when it is called, and turns failures into one line and a code."""

from __future__ import annotations

import importlib
import sys

import click

from crossmed_core import __version__
from crossmed_core.errors import CrossmedError, ExitCode, suggest

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("crossmed_cli.commands.run", "Train and score models on MAT splits; without arguments, a demo."),
    "build": ("crossmed_cli.commands.build", "Build a benchmark from raw downloads."),
    "verify": ("crossmed_cli.commands.verify", "Hold a download or a built benchmark against what is known of it."),
    "datasets": ("crossmed_cli.commands.datasets", "Licence, access and expected files of each dataset."),
    "score": ("crossmed_cli.commands.score", "Score a run again from its files alone."),
    "cases": ("crossmed_cli.commands.cases", "The single answers of a run, the worst first."),
    "compare": ("crossmed_cli.commands.compare", "Compare two runs on the same items: paired, with tests."),
    "power": ("crossmed_cli.commands.power", "Before a run: what its test items can show."),
    "bound": ("crossmed_cli.commands.bound", "The two-factor bound of a run, and how often it held."),
    "factors": (
        "crossmed_cli.commands.factors",
        "What sharing modality, anatomy and task is worth, over many targets.",
    ),
    "ls": ("crossmed_cli.commands.ls", "List datasets, models, splits, metrics or recipes."),
    "show": ("crossmed_cli.commands.show", "Show one item, cell, model, dataset or split."),
    "plugins": ("crossmed_cli.commands.plugins", "List, show and check plugins."),
}
"""Name -> module and help. Kept here so that --help imports no command."""

EPILOG = """\b
Exit codes:
  0  done
  1  done, but a trial failed or could not be made, a dataset was left out, or a check differs
  2  unknown name, wrong option, unreadable registry or recipe
  3  missing package, device, plugin or data
  4  run or benchmark folder locked, read-only, full, or of another run
  130  stopped from the keyboard; the same command goes on

Every option can be set by the environment: --train-size by CROSSMED_TRAIN_SIZE, and so on."""


class LazyGroup(click.Group):
    """Knows its commands by name; imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for an unknown one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = suggest(args[0], COMMANDS) or f"Commands: {', '.join(COMMANDS)}."
            raise click.UsageError(f"There is no command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crossmed")
def cli() -> None:
    """Measure compositional generalization in medical imaging.

    Can a model that has seen chest X-ray segmentation and brain MRI classification answer about a
    Modality-Anatomy-Task combination that it never saw? 'crossmed run' tries it on a synthetic phantom in minutes.
    """


def main() -> None:
    """Run the command line and exit with a documented code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line.

    Args:
        arguments: Without the program name.

    Returns:
        The exit code.
    """
    try:
        result = cli.main(args=arguments, prog_name="crossmed", standalone_mode=False)
        return result if isinstance(result, int) else ExitCode.OK
    except CrossmedError as error:
        _say(str(error))
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        see = f" See '{context.command_path} --help'." if context else ""
        _say(error.format_message() + see)
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        _say("Stopped. The same command goes on where it stopped.")
        return ExitCode.INTERRUPTED
    except RecursionError:
        _say("A file is nested too deeply.")
        return ExitCode.USAGE
    except BrokenPipeError:
        # The reader (head, less) went away. Python would complain once more when it flushes stdout at exit.
        sys.stderr.close()
        return ExitCode.OK
    except OSError as error:
        _say(f"{error.filename or 'A file'}: {error.strerror or error}.")
        return ExitCode.RUN_FOLDER


def _say(message: str) -> None:
    click.echo(f"crossmed: {message}", err=True)


if __name__ == "__main__":
    main()
