"""`python -m cofi_tune.tasks`: which tasks there are, and what is in one (its data card)."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from cofi_tune.data.arguments import Parser, add_source_arguments, source_from_arguments
from cofi_tune.data.card import describe
from cofi_tune.data.reader import DataError
from cofi_tune.tasks import _show
from cofi_tune.terminal import DATA_EXIT, USAGE_EXIT, fail


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0, 2 for wrong flags, 3 for data that cannot be used.
    """
    parser = Parser(prog="python -m cofi_tune.tasks", description=__doc__)
    add_source_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(arguments)
    given = {name for name, value in vars(args).items() if value and name != "json"}
    if not given:
        if args.json:
            print(json.dumps(_show.listing(), indent=1))
        else:
            _show.print_listing()
        return 0
    try:
        task, source = source_from_arguments(args)
    except DataError as error:
        return fail(error, DATA_EXIT)
    except ValueError as error:
        return fail(error, USAGE_EXIT)
    try:
        card = describe(task, source, args.tokenizer)
    except DataError as error:
        return fail(error, DATA_EXIT)
    if args.json:
        print(json.dumps(card.to_json(), indent=1))
    else:
        _show.print_card(card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
