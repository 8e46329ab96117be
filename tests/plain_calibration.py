"""`calibrated` in plain Python, one measurement at a time.

The same rules, written again: it tells wrong code, not wrong rules. These have tests of their own
(test_calibrated.py, regressions).
"""

import math
import statistics

LOG_30 = math.log(30)


class Calibration:
    """Numbers and conditions where the library has arrays; the names are those of `CalibrationState`."""

    def __init__(self, schedule=None, *, steps=None, target=1.0, start=0.001):
        self.schedule, self.target = schedule, target
        self.ramp_steps = 100 if steps is None else max(min(steps / 3, 60), 7)
        self.scale = self.anchor = self.record_scale = start
        self.phase = self.ended = 0
        self.ring, self.counted, self.climbed, self.record = [0.0] * 64, 0, 0.0, -100.0
        self.believed = self.suspects = self.cuts = self.stills = self.annealed = self.refused = 0
        self.sensitivity = self.suspect = self.cut_scale = self.recent = self.usual = 0.0
        self.peak, self.value, self.step = 0.0, 1.0, 0

    def update(self, distance, step, cut=0.0):
        """The scale after a measurement."""
        self.follow(step)
        if distance / self.target > 1e-5 or not distance >= 0:
            self.cuts = self.cuts + 1 if cut > 0.25 else 0
        self.believe(distance / self.target, step)
        if self.phase == 0:
            self.ramp()
        else:
            self.anneal()
        self.scale, self.anchor = (min(max(x, 1e-6), 1e6) for x in (self.scale, self.anchor))
        return self.scale if self.schedule else self.scale * self.value

    def follow(self, step):
        if self.schedule is None:
            self.value, self.peak = 1 / (1 + self.annealed / 25), 1.0
            return
        before, value = self.peak, self.schedule(step)
        if not 0 <= value < math.inf:
            self.refused += 1
            value = self.value
        passed = max(step - self.step, 1)
        between = [self.good(self.step + (2 * place + 1) * passed // 10) for place in range(5)]
        if 0 <= self.schedule(step) < math.inf and max(*between, value) > 2.5 * min(*between, value):
            value = statistics.fmean(between)
        ahead = sorted(self.good(step + (place + 1) * max(passed, 10) // 5) for place in range(5))
        later, twice = (ahead[-1], ahead[-2]) if self.phase == 1 else (value, 0.0)
        first = [each for each in (self.good(step), statistics.median(between)) if each > 0]
        self.peak = max(before, min(value, self.value), twice) if before > 0 else min(first, default=0.0)
        for reached in (value, later):
            if self.peak < reached <= 2 * self.peak:
                self.peak = reached
        if before > 0:
            lift = self.peak / before
            self.scale, self.anchor = self.scale / lift, self.anchor / lift
            self.record_scale, self.cut_scale = self.record_scale / lift, self.cut_scale / lift
        self.value = value

    def good(self, step):
        """The schedule at a step; 0 where it is no number for a rate."""
        value = self.schedule(step)
        return value if 0 <= value < math.inf else 0.0

    def start_again(self):
        self.counted, self.climbed, self.record = 0, 0.0, -100.0

    def believe(self, distance, step):
        peak = self.peak or 1.0
        self.decay = max(self.value / peak, 1e-3) if self.peak else 1.0
        self.finite = 0 <= distance < math.inf
        moved = self.finite and distance > 1e-5 and self.peak > 0 and self.value > 0
        value = math.log(distance) - math.log(self.scale * self.decay * peak) if moved else None
        if moved and self.believed == 2 and value <= self.sensitivity - math.log(1000) and distance <= 1e-3:
            moved = False  # rounding beside what was there before
        usable = moved and self.cuts == 0
        if not usable:
            value = self.sensitivity
        self.passed = max(step - self.step, 1)
        faded = -math.log(0.98) * min(self.passed, 10)
        self.steady = self.believed > 0 and value >= self.sensitivity - faded
        self.rising = self.believed > 0 and value > self.sensitivity + math.log(1.2)
        self.is_believed, self.changed = usable, False
        if usable and self.believed and abs(value - self.sensitivity) > math.log(5):
            up = value > self.sensitivity
            same = self.suspects > 0 and abs(value - self.suspect) <= math.log(5)
            if same and not (up and value < self.suspect - faded):
                self.suspects += 1
                self.suspect = min(value, self.suspect) if up else value
            else:
                self.suspects, self.suspect = 1, value
            enough = 3 if self.phase == 0 else 8
            if up:
                enough = max(enough, math.ceil(10 / self.passed))
            self.is_believed = self.changed = self.suspects >= enough
        elif usable:
            # What agrees is no suspect, but the next jump is compared with it.
            up = value > self.sensitivity
            same = self.suspects > 0 and abs(value - self.suspect) <= math.log(5)
            fading = up and value < self.suspect - faded
            self.suspect = min(value, self.suspect) if same and up and not fading else value
        if self.is_believed:
            self.suspects, self.sensitivity = 0, value
            self.believed = 1 if self.changed else min(self.believed + 1, 2)
        self.still = self.finite and not moved
        self.stills = self.stills + 1 if self.still else 0
        if self.stills >= (30 if self.counted else 3) and self.counted < 5:
            self.stills = self.believed = 0
            self.start_again()
        self.now, self.step = value, step

    def ramp(self):
        scale = self.scale
        log_rate = math.log(scale * (self.peak or 1.0))
        motion = self.now + log_rate
        calmer = self.is_believed and motion < self.record - math.log(5)
        if self.changed or (calmer and self.climbed < LOG_30):
            self.counted, self.climbed = 0, 0.0
        if self.is_believed and motion >= -LOG_30 - 0.1 and (self.counted or self.steady):
            self.ring[self.counted % 64] = self.now
            self.counted += 1
        excess = self.now + log_rate
        if self.counted:
            excess = statistics.median(self.ring[: self.counted]) + log_rate
        if self.is_believed and (motion > self.record or calmer):
            self.record, self.record_scale = motion, scale
        growth = min(LOG_30 * self.passed / self.ramp_steps, math.log(2))
        if self.counted:
            self.climbed += growth
        often_cut, near_before = self.cuts >= 2, scale < 3 * self.cut_scale
        enough = self.counted >= 5
        found = scale * math.exp(-max(excess, 0.0))
        anchor = None
        if self.is_believed and enough and excess >= -0.1 and found >= 1e-6:
            self.ended, anchor = 1, found
        elif self.cuts == 2 and (near_before or (enough and excess > -math.log(3))):
            self.ended, anchor = 4, scale * math.exp(-growth)
        elif (
            self.is_believed
            and self.cut_scale == 0
            and scale > (50 if motion > math.log(0.1) else 1000) * self.record_scale
        ):
            self.ended, anchor = 3, min(found, max(self.record_scale, 1.0))
        elif self.is_believed and enough and self.climbed >= 4 * LOG_30:
            self.ended, anchor = 2, found
        if self.cuts == 2:
            self.cut_scale = scale
        if anchor is not None:
            self.scale = self.anchor = anchor
            self.phase, self.believed = 1, 0
        else:
            self.scale *= math.exp(self.growth_of(motion, excess, growth))
            if often_cut:
                self.believed = 1
        if often_cut:
            self.sensitivity = -100.0
            self.start_again()

    def growth_of(self, motion, excess, growth):
        """By what the ramp multiplies the scale, in logarithms."""
        if not self.finite:
            return math.log(0.8)
        if self.still:
            never = self.believed == 0 and self.value > 0
            return min(max(-math.log(self.scale), 0.0), math.log(8)) if never else 0.0
        if self.cuts:
            return -growth if self.cuts >= 2 else 0.0
        if not self.is_believed:
            return -math.log(2) if motion > math.log(2) else 0.0
        rise = growth
        if self.believed == 2 and self.steady:
            fastest = min(math.log(2) * self.passed, math.log(64)) if self.rising else math.log(64)
            rise = min(max(-LOG_30 - max(excess, motion), growth), fastest)
        return max(min(rise, -excess), -math.log(2))

    def anneal(self):
        if self.is_believed and self.annealed == 0:
            self.recent = self.usual = self.now
        elif self.is_believed:
            self.recent += 0.3 * (self.now - self.recent)
            self.usual += 0.05 * (self.now - self.usual)
        floor = self.anchor * 0.2
        jump = not self.is_believed and not self.still and self.now > self.sensitivity
        if not self.finite:
            factor = 0.8
        elif jump or self.cuts:
            factor = min(max(floor / self.scale, 0.5), 1.0)
        else:
            wanted = self.anchor * min(max(math.exp(-0.5 * (self.recent - self.usual)), 0.2), 1.0)
            factor = min(max(wanted / self.scale, 0.5), 2.0 if self.scale < 0.99 * floor else 1.3)
        if self.is_believed or self.annealed:
            self.annealed += 1
        self.scale *= factor
        if self.changed and self.decay > 0.5:
            self.phase = self.ended = 0
            self.start_again()
