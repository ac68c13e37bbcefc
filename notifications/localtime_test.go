package notifications_test

import (
	"math/rand/v2"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	require.NoError(t, err)
	return z
}

func TestATimeOnAClock(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ zone, clock, want string }{
		"UTC":                               {"UTC", "2026-12-24 09:00:00", "2026-12-24T09:00:00Z"},
		"ahead":                             {"Pacific/Kiritimati", "2026-12-24 09:00:00", "2026-12-23T19:00:00Z"},
		"behind":                            {"Etc/GMT+12", "2026-12-24 09:00:00", "2026-12-24T21:00:00Z"},
		"minutes":                           {"Asia/Kathmandu", "2026-12-24 09:00:00", "2026-12-24T03:15:00Z"},
		"summer":                            {"Europe/Berlin", "2026-07-01 09:00:00", "2026-07-01T07:00:00Z"},
		"left out":                          {"Europe/Berlin", "2026-03-29 02:30:00", "2026-03-29T01:00:00Z"},
		"the first that is left out":        {"Europe/Berlin", "2026-03-29 02:00:00", "2026-03-29T01:00:00Z"},
		"the last before":                   {"Europe/Berlin", "2026-03-29 01:59:59", "2026-03-29T00:59:59Z"},
		"the first after":                   {"Europe/Berlin", "2026-03-29 03:00:00", "2026-03-29T01:00:00Z"},
		"twice":                             {"Europe/Berlin", "2026-10-25 02:30:00", "2026-10-25T00:30:00Z"},
		"the first that comes twice":        {"Europe/Berlin", "2026-10-25 02:00:00", "2026-10-25T00:00:00Z"},
		"after both":                        {"Europe/Berlin", "2026-10-25 03:00:00", "2026-10-25T02:00:00Z"},
		"west of UTC, left out":             {"America/New_York", "2026-03-08 02:15:00", "2026-03-08T07:00:00Z"},
		"west of UTC, twice":                {"America/New_York", "2026-11-01 01:15:00", "2026-11-01T05:15:00Z"},
		"half an hour left out":             {"Australia/Lord_Howe", "2026-10-04 02:10:00", "2026-10-03T15:30:00Z"},
		"half an hour twice":                {"Australia/Lord_Howe", "2026-04-05 01:45:00", "2026-04-04T14:45:00Z"},
		"midnight left out":                 {"Africa/Cairo", "2026-04-24 00:00:00", "2026-04-23T22:00:00Z"},
		"a day left out":                    {"Pacific/Apia", "2011-12-30 09:00:00", "2011-12-30T10:00:00Z"},
		"the day after one that is missing": {"Pacific/Apia", "2011-12-31 09:00:00", "2011-12-30T19:00:00Z"},
	} {
		clock, err := time.Parse(time.DateTime, tc.clock)
		require.NoError(t, err)
		require.Equal(t, tc.want, notifications.AtClock(clock, zone(t, tc.zone)).Format(time.RFC3339), name)
	}
}

// Against looking at the clock every minute.
func TestAnyTimeOnAnyClock(t *testing.T) {
	t.Parallel()
	const layout = "2006-01-02 15:04"
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"Europe/Berlin", "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Beirut", "America/Asuncion",
		"Pacific/Chatham", "Africa/Casablanca", "Antarctica/Troll", "America/Havana", "Asia/Kolkata", "Pacific/Kiritimati", "Pacific/Pago_Pago"}
	for range 400 {
		z := zone(t, names[r.IntN(len(names))])
		// Half of them within a few hours of a change.
		day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.IntN(365*24*60)) * time.Minute)
		if _, end := day.In(z).ZoneBounds(); r.IntN(2) == 0 && !end.IsZero() {
			_, offset := end.Zone()
			day = end.UTC().Add(time.Duration(offset)*time.Second + time.Duration(r.IntN(360)-180)*time.Minute)
		}
		clock, err := time.Parse(layout, day.Format(layout))
		require.NoError(t, err)
		want := time.Time{}
		for at := clock.Add(-15 * time.Hour); want.IsZero(); at = at.Add(time.Minute) {
			// Texts of this layout sort like the times they stand for. A clock that is
			// put back has shown the time before.
			if at.In(z).Format(layout) >= clock.Format(layout) {
				want = at
			}
		}
		require.Equal(t, want, notifications.AtClock(clock, z), "%s in %s", clock.Format(layout), z)
	}
}
