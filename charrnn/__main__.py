"""Entry point of ``python -m charrnn`` and of the ``charrnn`` command."""

import _signal as signal  # type: ignore[import-not-found]  # `signal` imports enum, which takes milliseconds
import os
import sys


def _interrupt(number: int, frame: object) -> None:
    """Exit at once: so early there is nothing to save, and an exception within an import may be printed or lost."""
    os._exit(130)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored, as after `&`
    signal.signal(signal.SIGINT, _interrupt)


def _set_up_libraries() -> None:
    """Set the environment variables that libraries read when they are imported."""
    # The products in NumPy are small. OpenBLAS would start a thread on each core, which slows them down beside other
    # programs, and it raises SIGINT if a thread cannot start.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for name in list(os.environ):
        if name == "OMP_NUM_THREADS" or name.startswith("TQDM_"):  # may be invalid; --threads and the console decide
            del os.environ[name]


def main() -> None:
    """Run the command line and exit."""
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        # Arguments and file names are UTF-8 under any locale, as texts are. Only Python's startup can decide this.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    _set_up_libraries()

    from charrnn.cli.app import main as run

    code = run()
    if sys.flags.inspect:  # Python would print SystemExit as an error
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]  # a file named numpy.py in the working directory is a text, not the library
    main()
