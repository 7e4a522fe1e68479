"""The databases of the SQL sample: two tables each, a parent and its child.

One line is one database: `parent columns | child columns`. The first column holds names, `#` marks
whole numbers, the other columns hold words. Both tables also get the parent's `<parent>_id` column.
Table names of one split never occur in another.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuneoff.records import Split

DATABASE_LINES: dict[Split, str] = {
    "train": """
        lighthouse name lantern #candela #stairs | keeper surname dialect #stipend
        patisserie name glaze #ovens | baker nickname pastry #croissants
        cloister name liturgy #cells #arcades | novice name chant #vigils
        vineyard name terroir #hectares | vintner surname grape #casks
        telescope label mount #aperture #lenses | astronomer name nebula #sightings
        shipyard name drydock #cranes | frigate name rigging #tonnage #cannons
        carnival name pavilion #tents | juggler alias costume #torches
        aquarium name reef #gallons #tanks | seahorse nickname seagrass #spines
        glacier name moraine #crevasses | mountaineer surname sponsor #ascents
        windmill name sailcloth #millstones #shutters | miller name grain #sacks
        kiln label firewood #shelves | potter surname enamel #vases
        choir name hymnal #pews #carols | soprano alias accent #solos
        paddock name turf #hurdles | jockey nickname silks #gallops
        letterpress label typeface #rollers | pamphlet title binding #folios #woodcuts
        fromagerie name rind #vats | cheesemaker surname herd #churns
        mineshaft label seam #lamps #ladders | prospector alias claim #nuggets
        taproom name hops #barrels | brewer surname ale #tankards
        castle name moat #turrets #dungeons | jester nickname ballad #pranks
        scriptorium name vellum #desks | scribe name inkwell #scrolls
        greenhouse label ventilation #trellises | orchid title petal #blooms #tendrils
        submarine name hull #knots | ensign surname hammock #patrols
        milliner name felt #ribbons #hatpins | bonnet label trim #feathers
        funicular name gauge #gradient | brakeman surname whistle #departures
        ropewalk name hemp #spindles | splicer nickname hitch #fathoms
        falconer surname lure #gauntlets | kestrel name plumage #wingspan
        dovecote label perch #alcoves | pigeon alias legband #flights #squabs
        fjord name cliff #soundings | kayaker surname paddle #portages
        sawmill name timber #blades #planks | lumberjack nickname axe #logs
        bazaar name awning #stalls | weaver surname motif #looms
        caravan label spice #camels #saddlebags | drover alias bridle #waterskins
        cathedral name nave #buttresses | organist surname fugue #recitals
        planetarium name dome #projectors | docent name constellation #handouts #badges
        marina name jetty #moorings | yacht title burgee #masts
        dojo name emblem #tatami #gongs | fencer alias foil #bouts
        velodrome name banking #laps | cyclist surname handlebar #sprints
        fishpond label weir #carp | angler nickname tackle #catches #hooks
        atelier name brocade #mannequins | seamstress name stitch #hems
        clocktower name chime #cogs #gargoyles | horologist surname escapement #repairs
        herbarium name mosses #specimens | botanist alias fern #expeditions
        lagoon name silt #sandbars | gondolier nickname serenade #fares #oars""",
    "validation": """
        kennel name pedigree #bowls | terrier nickname collar #whelps
        smelter name alloy #crucibles #bellows | blacksmith surname hammer #horseshoes
        abbey name cellar #arches | friar alias psalm #pilgrimages
        tugboat title funnel #horsepower #fenders | stoker surname shovel #voyages
        labyrinth label topiary #turnstiles | gardener name shears #hedges
        savanna name acacia #waterholes | meerkat nickname burrow #sentries #grubs""",
    "test": """
        zeppelin title gasbag #propellers | aeronaut surname goggles #crossings #parachutes
        teahouse name kettle #cushions | calligrapher alias brushwork #banners
        geyser label basin #eruptions #boardwalks | ranger surname outpost #rescues
        playhouse name curtain #balconies | tragedian name monologue #encores
        trawler title dragnet #winches #buoys | deckhand nickname tattoo #hauls
        sundial label gnomon #engravings | stonecutter surname chisel #inscriptions
        ballroom name chandelier #mirrors | dancer alias waltz #rehearsals #slippers
        toymaker surname varnish #workbenches | nutcracker title epaulette #walnuts""",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table without its keys."""

    name: str
    title: str
    """The column of names."""
    words: tuple[str, ...]
    """The columns of words."""
    numbers: tuple[str, ...]
    """The columns of whole numbers."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return all columns but the key, in the order of the schema."""
        return (self.title, *self.words, *self.numbers)


@dataclass(frozen=True, slots=True)
class Database:
    """A parent table, and a child table that points to it by `key`."""

    db_id: str
    split: Split
    parent: Table
    child: Table

    @property
    def key(self) -> str:
        """Return the column that both tables share."""
        return f"{self.parent.name}_id"

    def header(self, table: Table) -> tuple[str, ...]:
        """Return a table's columns with the key: first in the parent, last in the child."""
        own = table.columns
        return (self.key, *own) if table == self.parent else (*own, self.key)

    def statements(self, keys: bool = False) -> tuple[str, str]:
        """Return the CREATE TABLE statements.

        Args:
            keys: whether they declare primary and foreign keys.
        """
        parent_key = " PRIMARY KEY" if keys else ""
        child_key = f" REFERENCES {self.parent.name} ({self.key})" if keys else ""
        return self._statement(self.parent, parent_key), self._statement(self.child, child_key)

    def _statement(self, table: Table, key: str) -> str:
        texts = (table.title, *table.words)
        columns = [
            f"{column} {'TEXT' if column in texts else 'INT'}{key if column == self.key else ''}"
            for column in self.header(table)
        ]
        return f"CREATE TABLE {table.name} ({', '.join(columns)})"


def pluralize(noun: str) -> str:
    """Return a table's noun in the plural, which contains the singular."""
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def build_databases() -> tuple[Database, ...]:
    """Return every database of every split."""
    return tuple(
        _parse_database(split, line)
        for split, lines in DATABASE_LINES.items()
        for line in lines.strip().splitlines()
    )


def list_schema_words() -> frozenset[str]:
    """Return every word of a table or a column, and the plurals of tables."""
    words: set[str] = set()
    for database in build_databases():
        for table in (database.parent, database.child):
            words.update((table.name, pluralize(table.name), *table.columns))
    return frozenset(words)


def _parse_database(split: Split, line: str) -> Database:
    parent, child = (_parse_table(part.split()) for part in line.split("|"))
    return Database(f"{parent.name}_{child.name}", split, parent, child)


def _parse_table(parts: list[str]) -> Table:
    name, title, *columns = parts
    words = tuple(column for column in columns if not column.startswith("#"))
    numbers = tuple(column[1:] for column in columns if column.startswith("#"))
    return Table(name, title, words, numbers)
