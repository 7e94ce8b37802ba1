"""Closed lists of English words that the rules go by."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MONTHS = _words(
    """
    January February March April May June July August September October November December
    """
)

NATIONALITIES = _words(
    """
    American British English French German Italian Spanish Portuguese Dutch Belgian Swiss Austrian
    Swedish Norwegian Danish Finnish Polish Russian Greek Turkish Irish Scottish Canadian
    Australian Japanese Chinese Korean Indian Brazilian Mexican Argentine Chilean Egyptian
    """
)

COUNTRIES = _words(
    """
    France Germany Italy Spain Portugal Belgium Austria Sweden Norway Denmark Finland Poland
    Russia Greece Turkey Ireland Scotland Canada Australia Japan China Korea India Brazil Mexico
    Argentina Chile Egypt England Hungary Romania Bulgaria Peru Cuba Kenya Morocco
    """
)

OPPOSITES = _words(
    """
    largest/smallest highest/lowest longest/shortest oldest/newest earliest/latest
    tallest/shortest larger/smaller higher/lower longer/shorter older/younger heavier/lighter
    before/after northern/southern eastern/western northeastern/southwestern
    northwestern/southeastern increased/decreased increase/decrease increases/decreases
    majority/minority upper/lower above/below inside/outside outer/inner won/lost
    successful/unsuccessful hot/cold warm/cool wet/dry ancient/modern
    """
)
"""Pairs of words that exclude each other where one of them is said."""

NUMBER_WORDS = _words(
    """
    two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred
    thousand million billion trillion dozen half twice
    """
)

STARTERS = _words(
    """
    a about according after all also although among an and another any around as at b because been
    before being both but by c can could d despite did do does during each earlier either even
    ever every few finally first following for from further had has have he hence her here his how
    however i if in instead is it its later like many may meanwhile more moreover most much my
    neither no nor not now of often on once one only or other others our over q s several she
    should since so some sometimes soon still such than that the their them then there these they
    this those though through thus to today under unlike until up upon was we were what when where
    whether which while who why will with within without would yet you your
    """
)
"""Common words that open sentences, and labels of items: capitals that make no name."""

ENGLISH = _words(
    """
    the of and in to a is was for as on with by that at from an were are it his which be or this
    has had not but also its he their after first who they one into been have her she
    """
)
"""The commonest English words."""

PERSONS = _words(
    """
    actor actress singer songwriter musician composer writer author novelist poet politician
    player footballer pitcher boxer wrestler golfer swimmer cricketer driver physicist chemist
    mathematician astronomer biologist scientist philosopher physician painter sculptor artist
    architect engineer inventor king queen emperor empress prince princess duke duchess president
    statesman lawyer judge general admiral officer soldier businessman businesswoman director
    producer journalist historian economist theologian missionary saint bishop pope explorer
    activist comedian man woman dancer rancher astronaut aviator entrepreneur entomologist
    mountaineer diplomat nobleman criminal spy rapper coach goddess god hero
    """
)
"""Last words of kinds of people."""

FIELDS = _words(
    """
    History Religion Climate Demographics Economy Politics Culture Geography Education Transport
    Health Agriculture Sport Sports Name Names Etymology Administration Prehistory Languages
    Cuisine Music Economics Population Ecology Geology Law Slavery Women Life Death Murder
    Assassination
    """
)
"""What an article tells of a place or a thing: "History of Tibet"."""
