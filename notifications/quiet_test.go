package notifications_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nyaruka/phonenumbers"
	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/notifications"
)

func TestHoursAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]notifications.HoursOfDay{
		"":              notifications.LawfulHours,
		"off":           {},
		"08:00-21:00":   notifications.LawfulHours,
		"10:30 - 20:00": {From: 10*time.Hour + 30*time.Minute, To: 20 * time.Hour},
		"00:00-24:00":   {To: 24 * time.Hour},
	} {
		got, err := notifications.ParseHours(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"8-21", "08:00", "21:00-08:00", "08:00-08:00", "08:00-08:30", "08:00-25:00", "on"} {
		_, err := notifications.ParseHours(text)
		require.ErrorContains(t, err, "08:00-21:00", text)
	}
	for text, lawful := range map[string]bool{"": true, "09:00-20:00": true, "off": false, "07:00-20:00": false, "08:00-22:00": false} {
		h, err := notifications.ParseHours(text)
		require.NoError(t, err)
		require.Equal(t, lawful, h.IsLawful(), text)
	}
}

func TestTheEndOfQuietHours(t *testing.T) {
	t.Parallel()
	day, night := notifications.HoursOfDay{From: 7 * time.Hour, To: 22 * time.Hour}, notifications.HoursOfDay{From: 22 * time.Hour, To: 7 * time.Hour}
	half := notifications.HoursOfDay{From: 2*time.Hour + 30*time.Minute, To: 22 * time.Hour}
	for name, tc := range map[string]struct {
		hours    notifications.HoursOfDay
		zones    []string
		at, want string
	}{
		"in the hours":                {day, []string{"Europe/Berlin"}, "2026-06-01T10:00:00Z", "2026-06-01T10:00:00Z"},
		"the first moment":            {day, []string{"Europe/Berlin"}, "2026-06-01T05:00:00Z", "2026-06-01T05:00:00Z"},
		"a moment before":             {day, []string{"Europe/Berlin"}, "2026-06-01T04:59:59Z", "2026-06-01T05:00:00Z"},
		"the last moment":             {day, []string{"Europe/Berlin"}, "2026-06-01T19:59:59Z", "2026-06-01T19:59:59Z"},
		"the first moment outside":    {day, []string{"Europe/Berlin"}, "2026-06-01T20:00:00Z", "2026-06-02T05:00:00Z"},
		"over midnight, before":       {night, []string{"Europe/Berlin"}, "2026-06-01T21:00:00Z", "2026-06-01T21:00:00Z"},
		"over midnight, after":        {night, []string{"Europe/Berlin"}, "2026-06-01T03:00:00Z", "2026-06-01T03:00:00Z"},
		"over midnight, outside":      {night, []string{"Europe/Berlin"}, "2026-06-01T10:00:00Z", "2026-06-01T20:00:00Z"},
		"the night is shorter":        {day, []string{"Europe/Berlin"}, "2026-03-28T23:00:00Z", "2026-03-29T05:00:00Z"},
		"the night is longer":         {day, []string{"Europe/Berlin"}, "2026-10-24T22:00:00Z", "2026-10-25T06:00:00Z"},
		"ends at a time left out":     {half, []string{"Europe/Berlin"}, "2026-03-28T23:00:00Z", "2026-03-29T01:00:00Z"},
		"ends twice":                  {half, []string{"Europe/Berlin"}, "2026-10-24T22:00:00Z", "2026-10-25T00:30:00Z"},
		"ends twice, in between":      {half, []string{"Europe/Berlin"}, "2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z"},
		"two zones":                   {day, []string{"America/New_York", "Pacific/Honolulu"}, "2026-06-01T12:00:00Z", "2026-06-01T17:00:00Z"},
		"two zones, closed in one":    {day, []string{"America/New_York", "Pacific/Honolulu"}, "2026-06-02T03:00:00Z", "2026-06-02T17:00:00Z"},
		"no time that suits in three": {notifications.HoursOfDay{From: 9 * time.Hour, To: 10 * time.Hour}, []string{"UTC", "Asia/Tokyo"}, "2026-06-01T12:00:00Z", "0001-01-01T00:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, tc.at)
		require.NoError(t, err)
		var zones []*time.Location
		for _, z := range tc.zones {
			zones = append(zones, zone(t, z))
		}
		require.Equal(t, tc.want, notifications.Opens(at, tc.hours, zones...).UTC().Format(time.RFC3339), name)
	}
}

// Any hours in any zone, against looking at the clock every minute.
func TestTheEndOfAnyQuietHours(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	names := []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Pacific/Chatham", "Africa/Casablanca", "Antarctica/Troll", "Asia/Kathmandu"}
	for range 300 {
		z := zone(t, names[r.IntN(len(names))])
		at := time.Date(2026, 1, 1, 0, r.IntN(365*24*60), 0, 0, time.UTC)
		if _, end := at.In(z).ZoneBounds(); r.IntN(2) == 0 && !end.IsZero() {
			at = end.UTC().Truncate(time.Minute).Add(-time.Duration(r.IntN(24*60)) * time.Minute)
		}
		from, length := r.IntN(24*60), 1+r.IntN(24*60-1)
		to := (from + length) % (24 * 60)
		hours := notifications.HoursOfDay{From: time.Duration(from) * time.Minute, To: time.Duration(to) * time.Minute}
		isOpen := func(t time.Time) bool {
			h, m, _ := t.In(z).Clock()
			clock := h*60 + m
			if from < to {
				return from <= clock && clock < to
			}
			return clock >= from || clock < to
		}
		want := at
		for !isOpen(want) {
			want = want.Add(time.Minute)
		}
		if got := notifications.Opens(at, hours, z); !got.Equal(want) {
			require.Equal(t, want, got.UTC(), "%v at %v in %v", hours, at, z)
		}
	}
}

func TestZonesOfPhones(t *testing.T) {
	t.Parallel()
	names := func(phone string) []string {
		var all []string
		for _, z := range notifications.ZonesOfPhone(phone, time.UTC) {
			all = append(all, z.String())
		}
		return all
	}
	require.Equal(t, []string{"UTC"}, names(""))
	require.Equal(t, []string{"UTC"}, names("+870773111632"), "a satellite's is anywhere")
	for _, phone := range []string{"+12125550101", "+18085550101", "+15005550006"} {
		require.Subset(t, names(phone), []string{"America/New_York", "America/Los_Angeles", "Pacific/Honolulu"}, "phones move within a country: %s", phone)
		require.NotContains(t, names(phone), "Pacific/Guam", phone)
	}
	require.Equal(t, []string{"America/Puerto_Rico"}, names("+17875550101"))
	require.Subset(t, names("+61491570156"), []string{"Australia/Perth", "Australia/Sydney"})
	require.Contains(t, names("+447700900123"), "Europe/London")

	// Every country has hours that suit all of it, whatever the season.
	for code := range phonenumbers.GetSupportedCallingCodes() {
		zones := notifications.ZonesOfPhone(fmt.Sprintf("+%d2345678901", code), time.UTC)
		for month := range 12 {
			at := time.Date(2026, time.Month(month+1), 2, 0, 0, 0, 0, time.UTC)
			until := notifications.Opens(at, notifications.LawfulHours, zones...)
			require.False(t, until.IsZero(), "+%d in month %d", code, month+1)
			require.Less(t, until.Sub(at), 48*time.Hour, "+%d", code)
			require.False(t, slices.ContainsFunc(zones, func(z *time.Location) bool { h := until.In(z).Hour(); return h < 8 || h >= 21 }), "+%d", code)
		}
	}
}

func TestQuietHoursNeedBothEnds(t *testing.T) {
	t.Parallel()
	c := core.NewBaseCollection("preferences")
	c.Fields.Add(&core.TextField{Name: "quietFrom"}, &core.TextField{Name: "quietTo"})
	for _, tc := range []struct{ from, to, says string }{
		{"", "", ""}, {"22:00", "07:00", ""}, {"22:00", "", "when the quiet hours end"}, {"", "07:00", "when the quiet hours begin"}, {"07:00", "07:00", "are none"},
	} {
		r := core.NewRecord(c)
		r.Load(map[string]any{"quietFrom": tc.from, "quietTo": tc.to})
		err := notifications.CheckQuietHours(r)
		if tc.says == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, tc.says)
	}
}
