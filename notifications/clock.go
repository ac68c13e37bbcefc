package notifications

import "time"

// ClockOf is what a clock in zone shows at t, written as a time in UTC.
func ClockOf(t time.Time, zone *time.Location) time.Time { return clockOf(t, zone) }

// AtClock is the first instant at which a clock in zone shows clock, a date and time
// written in UTC. A time that is left out that day (daylight saving begins) is the
// first instant after the gap; of one that comes twice it is the first.
func AtClock(clock time.Time, zone *time.Location) time.Time { return atClock(clock, zone) }

// LoadZone returns a time zone by its name, such as Europe/Paris; nil when there is
// none of that name.
func LoadZone(name string) *time.Location { return loadZone(name) }
