"""Entry point of ``python -m charrnn`` and of the ``charrnn`` command."""

import _signal as signal  # type: ignore[import-not-found]  # importing `signal` takes milliseconds longer
import os
import sys


def _interrupt(number: int, frame: object) -> None:
    """Exit at once. There is nothing to save yet, and an exception during an import may be printed or lost."""
    os._exit(130)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored, as after `&`
    signal.signal(signal.SIGINT, _interrupt)


def _set_up_libraries() -> None:
    """Set the environment variables that libraries read when they are imported."""
    # The products in NumPy are small. With a thread on each core, OpenBLAS computes them slowly while other programs
    # run, and it raises SIGINT if it cannot start a thread.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for name in list(os.environ):
        if name == "OMP_NUM_THREADS" or name.startswith("TQDM_"):  # values may be invalid; charrnn sets these itself
            del os.environ[name]


def _remove_working_directory() -> None:
    """Remove the working directory from the module search path. A file named numpy.py there must not be imported."""
    try:
        if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
            del sys.path[0]
    except FileNotFoundError:  # the working directory was deleted, so Python has not added it
        pass


def main() -> None:
    """Run the command line and exit."""
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        # Arguments and file names are UTF-8 under any locale. Python can set this only when it starts.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    _set_up_libraries()

    from charrnn.cli.app import main as run

    code = run()
    if sys.flags.inspect:  # Python would print SystemExit as an error
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _remove_working_directory()
    main()
