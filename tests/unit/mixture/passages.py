"""Passages made for the tests of MIXTURE, with the marks that extraction leaves behind."""

from __future__ import annotations

from mixup.mixture.items import Segment

LIGHTHOUSE = Segment(
    "segment-1",
    "article-1",
    "Ormsay Lighthouse",
    "Ormsay Lighthouse (/ˈɔːmzi/) is a Scottish stone lighthouse on the island of Ormsay, built "
    "between 1841 and 1844 by the engineer Alan Carmichael.[1] It was manned by three keepers "
    "until 31 March 1986, when its lamp was made automatic. The tower is 38 metres tall and has "
    "142 steps, and its light can be seen from 24 nautical miles.[2][3] Ormsay Lighthouse was not "
    "damaged by the storm of 1953, which destroyed the largest pier of the island.",
)
PERSON = Segment(
    "segment-2",
    "article-2",
    "Ida Holm (botanist)",
    "Ida Holm (4 May 1871 – 9 June 1950) was a Norwegian botanist. She studied in Bergen under "
    "Professor Lars Nygaard, and collected 2,300 specimens of moss in northern Norway. In 1911, "
    "Holm published the first atlas of the mosses of Spitsbergen, which remained in use for 60 "
    "years. Her students never forgot the cold summers with her in the mountains near Tromsø.",
)
SEGMENTS = (LIGHTHOUSE, PERSON)
