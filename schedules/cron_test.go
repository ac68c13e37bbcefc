package schedules_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/schedules"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	require.NoError(t, err)
	return z
}

func TestCronRefused(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"":                       "Write when it runs",
		"   ":                    "Write when it runs",
		"0 0 9 * * sat":          "Seconds are not supported",
		"0 0 9 * * sat 2026":     "Seconds are not supported",
		"0 9 * *":                "This has 4 fields",
		"every day at 9":         "Words are not understood here. Write 0 9 * * * for every day at 09:00",
		"täglich um 9":           "Words are not understood here.",
		"9:00 on * * mon":        "Words are not understood here.",
		"9 am":                   "Words are not understood here.",
		"9":                      "This has 1 field.",
		"60 9 * * *":             `The minute (first field) is "60": that is out of range. Write 0 to 59`,
		"0 24 * * *":             `The hour (second field) is "24"`,
		"0 9 0 * *":              `The day of the month (third field) is "0"`,
		"0 9 32 * *":             `The day of the month (third field) is "32"`,
		"0 9 * 13 *":             `The month (fourth field) is "13"`,
		"0 9 * * 8":              `The day of the week (fifth field) is "8"`,
		"0 9 * * someday":        `The day of the week (fifth field) is "someday"`,
		"0 9 * * lun-7":          `The day of the week (fifth field) is "lun-7": it cannot be read.`,
		"0 9 * * unm-7/2":        `The day of the week (fifth field) is "unm-7/2": it cannot be read.`,
		"0 9 * * sat,":           "a comma stands alone",
		"0 17-9 * * *":           "the range ends before it begins",
		"*/0 * * * *":            "the number after / is 0",
		"-5 * * * *":             `The minute (first field) is "-5"`,
		"1--5 * * * *":           `The minute (first field)`,
		"0 9 ? * *":              "? is not understood",
		"0 9 L * *":              "L, W and # are not understood",
		"0 9 15W * *":            "L, W and # are not understood",
		"0 9 * * 5#2":            "L, W and # are not understood",
		"0 9 30 2 *":             "This day never comes: on the 30th of February.",
		"0 9 31 4,6,9,11 *":      "This day never comes: on the 31st of April, June, September and November.",
		"@every 5m":              "@every counts from the start",
		"@reboot":                "@reboot is not a time",
		"@fortnightly":           "@fortnightly is not known",
		"TZ=UTC 0 9 * * *":       "The time zone has a field of its own",
		"CRON_TZ=UTC":            "The time zone has a field of its own",
		"99999999999999 * * * *": "The minute",
	} {
		_, err := schedules.ParseCron(line)
		var wrong *schedules.CronError
		require.ErrorAs(t, err, &wrong, line)
		require.Contains(t, err.Error(), want, line)
	}
}

func TestCronInWords(t *testing.T) {
	t.Parallel()
	paris := zone(t, "Europe/Paris")
	for line, want := range map[string]string{
		"0 9 * * sat":         "every Saturday at 09:00, Europe/Paris",
		"0 9 * * 6":           "every Saturday at 09:00, Europe/Paris",
		"0 9 * * SAT":         "every Saturday at 09:00, Europe/Paris",
		"@daily":              "every day at 00:00, Europe/Paris",
		"@hourly":             "every hour, Europe/Paris",
		"@weekly":             "every Sunday at 00:00, Europe/Paris",
		"@monthly":            "on the 1st of every month at 00:00, Europe/Paris",
		"@yearly":             "on the 1st of January at 00:00, Europe/Paris",
		"* * * * *":           "every minute, Europe/Paris",
		"*/5 * * * *":         "every 5 minutes, Europe/Paris",
		"0 */6 * * *":         "every day at 00:00, 06:00, 12:00 and 18:00, Europe/Paris",
		"0 */2 * * *":         "every 2 hours from midnight on, Europe/Paris",
		"30 6,18 * * 1-5":     "Monday to Friday at 06:30 and 18:30, Europe/Paris",
		"0 9-17 * * mon-fri":  "every hour from 09:00 to 17:00, Monday to Friday, Europe/Paris",
		"*/15 9-17 * * *":     "every 15 minutes from 09:00 to 17:45, Europe/Paris",
		"5,35 * * * *":        "always at 5 and 35 minutes past the hour, Europe/Paris",
		"1 * * * *":           "always at 1 minute past the hour, Europe/Paris",
		"0 9 * * 0,6":         "every Saturday and Sunday at 09:00, Europe/Paris",
		"0 9 * * 5-7":         "every Friday, Saturday and Sunday at 09:00, Europe/Paris",
		"0 9 * * 7":           "every Sunday at 09:00, Europe/Paris",
		"0 9 * * FRI-7":       "every Friday, Saturday and Sunday at 09:00, Europe/Paris",
		"0 9 * * sun-7/3":     "every Wednesday, Saturday and Sunday at 09:00, Europe/Paris",
		"0 9 1,15 * *":        "on the 1st and 15th of every month at 09:00, Europe/Paris",
		"0 9 1-7 * *":         "on the 1st to the 7th of every month at 09:00, Europe/Paris",
		"0 18 24 12 *":        "on the 24th of December at 18:00, Europe/Paris",
		"0 9 * jun,jul sun":   "every Sunday in June and July at 09:00, Europe/Paris",
		"0 9 13 * fri":        "on the 13th of every month and also every Friday at 09:00, Europe/Paris",
		"0 9 */2 * mon":       "every Monday, only on the 1st, 3rd, 5th, 7th, 9th, 11th, 13th, 15th, 17th, 19th, 21st, 23rd, 25th, 27th, 29th and 31st of every month at 09:00, Europe/Paris",
		"  0   9  *  *  sat ": "every Saturday at 09:00, Europe/Paris",
	} {
		c, err := schedules.ParseCron(line)
		require.NoError(t, err, line)
		require.Equal(t, want, c.Words(paris), line)
	}
}

func TestCronNext(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		line, zone, after string
		want              []string
	}{
		"saturdays in Paris, over the end of summer time": {"0 9 * * sat", "Europe/Paris", "2026-10-20T00:00:00Z",
			[]string{"2026-10-24T07:00:00Z", "2026-10-31T08:00:00Z"}},
		"an hour that does not exist runs once, right after it": {"30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z",
			[]string{"2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}},
		"several times in an hour that does not exist are one": {"*/10 2 * * *", "Europe/Berlin", "2026-03-29T00:59:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}},
		"and not one more when the next hour counts too": {"0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}},
		"an hour that comes twice runs once, the first time": {"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		"not again after the second time began": {"30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z",
			[]string{"2026-10-26T01:30:00Z"}},
		"every hour goes on through the hour that comes twice": {"0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z",
			[]string{"2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}},
		"every hour goes on through the gap": {"30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z",
			[]string{"2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"}},
		"every 20 minutes in a zone whose clocks change by half an hour": {"*/20 * * * *", "Australia/Lord_Howe", "2026-10-03T15:20:00Z",
			[]string{"2026-10-03T15:40:00Z", "2026-10-03T16:00:00Z", "2026-10-03T16:20:00Z"}},
		"midnight that does not exist": {"0 0 * * *", "Africa/Cairo", "2026-04-23T00:00:00Z",
			[]string{"2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"}},
		"a leap day":           {"0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", []string{"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"}},
		"a leap day over 2100": {"0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", []string{"2104-02-29T00:00:00Z"}},
		"the 31st skips short months": {"0 0 31 * *", "UTC", "2026-01-31T00:00:00Z",
			[]string{"2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z"}},
		"a day that was left out altogether": {"0 9 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", []string{"2011-12-30T10:00:00Z", "2012-12-29T19:00:00Z"}},
		"exactly now is not next":            {"0 9 * * *", "UTC", "2026-01-01T09:00:00Z", []string{"2026-01-02T09:00:00Z"}},
		"a moment before is":                 {"0 9 * * *", "UTC", "2026-01-01T08:59:59.999Z", []string{"2026-01-01T09:00:00Z"}},
		"either day":                         {"0 0 13 * fri", "UTC", "2026-11-12T12:00:00Z", []string{"2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z", "2026-11-27T00:00:00Z", "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"}},
	} {
		c, err := schedules.ParseCron(tc.line)
		require.NoError(t, err, name)
		after, err := time.Parse(time.RFC3339, tc.after)
		require.NoError(t, err, name)
		var got []string
		for _, at := range c.Upcoming(after, zone(t, tc.zone), len(tc.want)) {
			got = append(got, at.Format(time.RFC3339))
		}
		require.Equal(t, tc.want, got, name)
	}
}

func TestCronMissed(t *testing.T) {
	t.Parallel()
	c, err := schedules.ParseCron("0 9 * * *")
	require.NoError(t, err)
	due := time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)
	for days, want := range map[int]int{0: 0, 1: 1, 5: 5} {
		last, before := c.Missed(due, due.AddDate(0, 0, days).Add(time.Hour), time.UTC)
		require.Equal(t, due.AddDate(0, 0, days), last)
		require.Equal(t, want, before)
	}
	every, err := schedules.ParseCron("* * * * *")
	require.NoError(t, err)
	now := due.AddDate(1, 0, 0).Add(30 * time.Second)
	last, before := every.Missed(due, now, time.UTC)
	require.Equal(t, now.Truncate(time.Minute), last)
	require.Equal(t, 10000, before, "more are not counted")
}

func FuzzCron(f *testing.F) {
	for _, line := range []string{"0 9 * * sat", "@daily", "*/5 1-3,7 * jan-mar 5-7/2", "TZ=", "0 0 30 2 *", "1/2/3 * * * *", "* * * * 7-7"} {
		f.Add(line)
	}
	start := time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC)
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, err := schedules.ParseCron(line)
		if err != nil {
			return
		}
		require.NotEmpty(t, c.Words(berlin))
		at := start
		for range 5 {
			next := c.Next(at, berlin)
			require.True(t, next.After(at), "%q after %s", line, at)
			at = next
		}
	})
}
