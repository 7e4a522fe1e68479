"""Python imports this at its start where its folder is on the path, as `days.travel` puts it."""

import days

days.set_here()
