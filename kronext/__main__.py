"""`python -m kronext`."""

from kronext.cli import main

raise SystemExit(main())
