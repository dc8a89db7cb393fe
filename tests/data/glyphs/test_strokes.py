import pytest

from slimwright.data.glyphs.strokes import MOST, SUPERCLASSES, chosen


def test_there_are_a_hundred_characters_and_none_twice() -> None:
    every = [character for members in SUPERCLASSES.values() for character in members]
    assert len(every) == len(set(every)) == MOST == 100
    assert {name: len(members) for name, members in SUPERCLASSES.items()} == {
        "digits": 10,
        "upper case": 26,
        "lower case": 18,
        "Greek": 20,
        "symbols": 26,
    }


def test_strokes_hold_as_many_numbers_as_their_kind_takes() -> None:
    for members in SUPERCLASSES.values():
        for strokes in members.values():
            for stroke in strokes.split(";"):
                kind, *numbers = stroke.split()
                assert kind in "LSA" and all(map(float, numbers) for _ in numbers)
                assert len(numbers) == 6 if kind == "A" else len(numbers) >= 4 and len(numbers) % 2 == 0


@pytest.mark.parametrize("classes", [10, 20, 37, 50, 99, 100])
def test_classes_are_taken_from_every_super_class_in_turn(classes: int) -> None:
    taken = chosen(classes)
    assert sum(map(len, taken.values())) == classes
    assert all(members == tuple(SUPERCLASSES[name])[: len(members)] for name, members in taken.items())
    unfinished = [len(members) for name, members in taken.items() if len(members) < len(SUPERCLASSES[name])]
    assert not unfinished or max(unfinished) - min(unfinished) <= 1


def test_fifty_classes_are_ten_of_each() -> None:
    assert {len(members) for members in chosen(50).values()} == {10}
