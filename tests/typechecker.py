"""How annotations are checked in tests: by beartype, for which a whole number is a float too, as it is for Python."""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
