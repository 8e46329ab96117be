import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cgalr_jax import stopping

series = hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats(0, 1))
windows = st.integers(1, 6)
tolerances = st.floats(0.01, 0.99)


@pytest.mark.parametrize(
    ("distances", "levelled"),
    [
        ([8, 8, 8, 4, 2, 2], [0, 0, 0, 0, 0, 1]),  # level at the peak is not settled
        ([8, 4, 2, 1, 0.5, 0.25], [0, 0, 0, 0, 0, 0]),  # still falling
        ([8, 4, 3.9, 3.9, 8, 3], [0, 0, 1, 1, 0, 0]),  # and may begin to move again
        ([8, 6, 6, 6], [0, 0, 0, 0]),  # not far enough below the peak
        ([1, 8, 1, 1], [0, 0, 0, 1]),  # the peak is not the start
        ([0, 0, 0, 0], [0, 1, 1, 1]),  # nothing moves at all
    ],
)
def test_levelled_is_flat_below_the_peak(distances, levelled):
    np.testing.assert_array_equal(
        stopping.levelled(distances, window=1, tolerance=0.1), np.array(levelled, bool)
    )


@given(series, windows, tolerances)
def test_levelled_is_what_its_formula_says(distances, window, tolerance):
    got = stopping.levelled(distances, window=window, tolerance=tolerance)
    assert got.shape == distances.shape
    means = {t: np.mean(distances[t - window + 1 : t + 1]) for t in range(window - 1, len(distances))}
    for t, now in means.items():
        if t - window in means:
            peak = max(m for s, m in means.items() if s <= t)
            margins = (now - (1 - tolerance) * means[t - window], 0.7 * peak - now)
            if min(map(abs, margins)) > 1e-12 or now == 0:  # a rounding decides the others
                assert got[t] == (min(margins) >= 0)
    assert not got[: 2 * window - 1].any()


@given(series, windows, tolerances, st.integers(0, 40))
def test_the_future_does_not_count(distances, window, tolerance, known):
    whole = stopping.levelled(distances, window=window, tolerance=tolerance)
    part = stopping.levelled(distances[:known], window=window, tolerance=tolerance)
    np.testing.assert_array_equal(whole[:known], part)


@given(series, windows, tolerances, st.sampled_from([0.25, 4.0]))
def test_the_unit_of_the_distance_does_not_matter(distances, window, tolerance, unit):
    a, b = (stopping.levelled(d, window=window, tolerance=tolerance) for d in (distances, unit * distances))
    np.testing.assert_array_equal(a, b)


@given(series.filter(len), windows)
def test_more_tolerance_never_stops_later(distances, window):
    strict, loose = (stopping.levelled(distances, window=window, tolerance=t) for t in (0.1, 0.5))
    assert not np.any(strict & ~loose)


def test_what_could_not_be_measured_stops_nothing():
    distances = np.array([8.0, 4, 2, 2, 2, np.nan, 2, 2, 2, 2])
    got = stopping.levelled(distances, window=2, tolerance=0.1)
    expected = stopping.levelled(np.nan_to_num(distances, nan=2.0), window=2, tolerance=0.1)
    assert expected[-1]
    assert got[-1]
    assert not got[5:9].any()  # the averages that hold it, now or a window ago
    np.testing.assert_array_equal(got[:5], expected[:5])


def test_many_series_at_once():
    distances = np.random.default_rng(0).random((3, 2, 20))
    got = stopping.levelled(distances, window=2, tolerance=0.3)
    assert got.shape == distances.shape
    assert got.any()
    np.testing.assert_array_equal(got[1, 1], stopping.levelled(distances[1, 1], window=2, tolerance=0.3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distances": 1.0}, r"distances must have shape \[..., T\], got \(\)"),
        ({"distances": "falling"}, "distances must be an array of numbers, got 'falling'"),
        ({"distances": [[1.0], [1.0, 2.0]]}, "distances must be an array of numbers"),
        ({"window": 0}, "window must be an integer of at least 1, got 0"),
        ({"window": 2.0}, "window must be an integer of at least 1, got 2.0"),
        ({"tolerance": None}, r"tolerance must be in \(0, 1\), got None"),
        ({"tolerance": 1.0}, r"tolerance must be in \(0, 1\), got 1.0"),
        ({"tolerance": float("nan")}, r"tolerance must be in \(0, 1\), got nan"),
    ],
)
def test_errors_name_the_argument_and_what_was_received(options, message):
    with pytest.raises(ValueError, match=message):
        stopping.levelled(**{"distances": [1.0, 2.0], **options})


def test_the_defaults_are_those_of_the_benchmark():
    series = np.concatenate([np.full(8, 8.0), np.ones(30)])
    assert stopping.levelled(series).argmax() == 17  # five epochs at the end of the fall, and five more
    falling = 8 * 0.975 ** np.arange(60)  # 12 % in five epochs, 14 % in six
    assert not stopping.levelled(falling).any()
    assert stopping.levelled(falling, tolerance=0.2).any()


def test_two_windows_are_enough_and_no_tolerance_is_none():
    assert stopping.levelled([2, 8, 8, 1.5], window=2).tolist() == [False, False, False, True]
    assert stopping.levelled([4, 1, 1, 1], window=1, tolerance=0.1)[1:].tolist() == [False, True, True]
    assert stopping.levelled([8, 1], window=1).shape == (2,)
    with pytest.raises(ValueError, match=r"^tolerance must be in \(0, 1\), got 0"):
        stopping.levelled([1.0], tolerance=0)


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_a_distance_that_was_not_measured_is_no_peak(lost):
    distances = [8, 8, lost, 8, 8, 8, 8]
    assert not stopping.levelled(distances, window=1).any()
    assert stopping.levelled([8, lost, 8, 1, 1], window=1).tolist() == [False, False, False, False, True]
