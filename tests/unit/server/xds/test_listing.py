"""What wildcards list: kept up once for all who follow it, and only while somebody does."""

from __future__ import annotations

from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS
from tests.unit.server.xds.world import API, NAME, cache, move, ports, remove
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.xds.listing import Listings, Wildcard
from vmsvc_grpc.server.xds.resources import Resources, TypeUrl


class Reader:
    """One stream that follows what wildcards list of a type."""

    def __init__(
        self,
        listings: Listings,
        type_url: TypeUrl = CDS,
        shown: FilterClass = FilterClass.READY_ONLY,
    ) -> None:
        self.wakes = 0
        self.wildcard: Wildcard = listings.follow(type_url, None, shown, self.wake)

    def wake(self) -> None:
        self.wakes += 1

    def taken(self) -> list[str]:
        """All that is new to it; `-name` of one that is gone."""
        self.wakes = 0
        wildcard, names = self.wildcard, []
        while wildcard.behind:
            wildcard.listing.catch_up(1_000)
            if (due := wildcard.take()) is not None:
                names.append(due.name if due.cell.there else f"-{due.name}")
        return names


def listings_of(served: Cache) -> Listings:
    return Listings(served, Resources(ServerCounts()))


def test_one_listing_is_for_all_who_may_see_the_same_of_a_type() -> None:
    listings = listings_of(cache())
    readers = [Reader(listings, CDS, shown) for shown in FilterClass for _ in range(10)]
    assert len(listings._open) == 1, "which VMs are ready makes no difference to clusters"
    readers += [Reader(listings, EDS, shown) for shown in FilterClass for _ in range(10)]
    assert len(listings._open) == 3
    assert {tuple(reader.taken()) for reader in readers} == {(NAME,)}
    for reader in readers:
        reader.wildcard.close()
    assert not listings._open


def test_nothing_is_followed_for_nobody() -> None:
    served = cache()
    listings = listings_of(served)
    reader = Reader(listings)
    reader.taken()
    reader.wildcard.close()
    assert not served.collection._logs


def test_it_is_filled_in_slices_and_read_once_it_is_full() -> None:
    count = 100
    served = synced_cache(*(service(Key("shop", f"s{n:03}"), ports(1, 2)) for n in range(count)))
    reader = Reader(listings_of(served))
    listing, looks = reader.wildcard.listing, []
    while listing.behind:
        looks.append(listing.catch_up(10))
        assert len(listing) <= sum(looks)
    assert max(looks) == 10
    assert sum(looks) <= 4 * count
    assert reader.taken() == [f"s{n:03}.shop:{port}" for n in range(count) for port in (1, 2)]


def test_endpoints_that_change_are_no_news_to_who_follows_clusters() -> None:
    served = cache(service(API, spec({"app": "api"})))
    listings = listings_of(served)
    clusters, assignments = Reader(listings, CDS), Reader(listings, EDS)
    both = ["api.shop:80", NAME]
    assert clusters.taken() == assignments.taken() == both
    move(served, "10.0.0.2")
    assert (clusters.wakes, assignments.wakes) == (0, 1)
    assert assignments.taken() == [NAME]
    served.apply(Apply(service(WEB, ports(80, 81))))
    assert (clusters.wakes, assignments.wakes) == (1, 1)
    assert clusters.taken() == ["web.shop:81"]
    assert assignments.taken() == [NAME, "web.shop:81"]
    remove(served)
    assert clusters.taken() == assignments.taken() == [f"-{NAME}", "-web.shop:81"]


def test_who_was_woken_for_nothing_is_woken_again() -> None:
    served = synced_cache(service(given=spec({"app": "x"})), vm("a", "10.0.0.1"))
    listings = listings_of(served)
    first, second = Reader(listings, EDS), Reader(listings, EDS)
    for reader in (first, second):
        reader.taken()
    for target in (9377, 9376):  # There and back again: by then there is nothing new.
        changed = spec({"app": "x"}, ports=(ports(80).ports[0]._replace(target_port=target),))
        served.apply(Apply(service(given=changed)))
    first.taken()
    assert second.wakes == 1
    second.taken()
    served.apply(Apply(service(given=ports(81))))
    assert (first.wakes, second.wakes) == (1, 1)


def test_a_change_is_encoded_and_noted_once_for_all() -> None:
    served, counts = cache(), ServerCounts()
    listings = Listings(served, Resources(counts))
    readers = [Reader(listings, EDS) for _ in range(100)]
    for reader in readers:
        reader.taken()
    counts.xds_encodings.clear()
    move(served, "10.0.0.2")
    for reader in readers:
        assert reader.taken() == [NAME]
    assert counts.xds_encodings[EDS.label] == 1
    (listing,) = {reader.wildcard.listing for reader in readers}
    assert listing._log is not None
    assert len(listing._log._part.changes) == 1
