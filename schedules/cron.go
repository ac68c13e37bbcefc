package schedules

import (
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/groundworkhq/groundwork/notifications"
)

// horizon is how far a run is looked for. The 29th of February can be eight years
// away; what does not come by then never does.
const horizon = 9 * 366

// Cron is a cron line that was read: five fields, to the minute.
//
// The reading is github.com/robfig/cron's. The arithmetic is not: in its own a time
// that daylight saving leaves out is skipped, and one that comes twice runs twice.
type Cron struct {
	expr   string
	fields [5]string // as written, @daily and its like written out
	minute,
	hour,
	day,
	month,
	weekday uint64
	anyDay, anyWeekday bool // "*": the other one decides alone
}

// CronError says what is wrong with a cron line, in a sentence for the person who
// wrote it.
type CronError struct{ Sentence string }

// Error is the sentence.
func (e *CronError) Error() string { return e.Sentence }

func cronError(format string, args ...any) error { return &CronError{fmt.Sprintf(format, args...)} }

// shorthands are written out.
var shorthands = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

var cronFields = [5]struct{ name, place, values string }{
	{"minute", "first", "0 to 59"},
	{"hour", "second", "0 to 23"},
	{"day of the month", "third", "1 to 31"},
	{"month", "fourth", "1 to 12, or jan to dec"},
	{"day of the week", "fifth", "0 to 7 (0 and 7 are Sunday), or sun to sat"},
}

// plainWords is what somebody writes who has not met cron: "every day at 9", "9:00".
var plainWords = regexp.MustCompile(`(?i)^\p{L}|[0-9]:[0-9]{2}|[0-9] ?[ap]m\b`)

var fieldParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// ParseCron reads a cron line. The error is a [*CronError].
func ParseCron(expr string) (*Cron, error) {
	text := strings.Join(strings.Fields(expr), " ")
	c := &Cron{expr: text}
	switch lower := strings.ToLower(text); {
	case text == "":
		return nil, cronError(`Write when it runs, such as 0 9 * * sat for every Saturday at 09:00.`)
	case strings.HasPrefix(lower, "@every"):
		return nil, cronError("@every counts from the start of a server, so it is not understood here: write */15 * * * * for every 15 minutes.")
	case lower == "@reboot":
		return nil, cronError("@reboot is not a time of the clock, so it is not understood here.")
	case strings.HasPrefix(lower, "@"):
		written, ok := shorthands[lower]
		if !ok {
			return nil, cronError("%s is not known. Use @hourly, @daily, @weekly, @monthly, @yearly, or the five fields.", text)
		}
		text = written
	case strings.Contains(text, "TZ="):
		return nil, cronError("The time zone has a field of its own: take %s out of here.", strings.Fields(text)[0])
	}
	parts := strings.Fields(text)
	switch n := len(parts); {
	case plainWords.MatchString(text):
		return nil, cronError("Words are not understood here. Write 0 9 * * * for every day at 09:00, 0 9 * * sat for every Saturday at 09:00, 0 9 1 * * for the 1st of every month.")
	case n == 6 || n == 7:
		return nil, cronError("This has %d fields. There are five here: minute, hour, day of the month, month, day of the week. Seconds are not supported: leave the first field out.", n)
	case n != 5:
		return nil, cronError("This has %s. There are five: minute, hour, day of the month, month, day of the week, such as 0 9 * * sat.", countOf(n, "field"))
	}
	sets := [5]uint64{}
	for i, part := range parts {
		set, err := parseField(i, part)
		if err != nil {
			return nil, err
		}
		sets[i] = set
		c.fields[i] = part
	}
	c.minute, c.hour, c.day, c.month, c.weekday = sets[0], sets[1], sets[2], sets[3], sets[4]
	c.anyDay, c.anyWeekday = strings.HasPrefix(parts[2], "*"), strings.HasPrefix(parts[4], "*")
	if c.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), time.UTC).IsZero() {
		return nil, cronError("This day never comes: %s.", c.days())
	}
	return c, nil
}

// valueBits are the bits that stand for values.
const valueBits = 1<<60 - 1

func parseField(i int, part string) (uint64, error) {
	f := cronFields[i]
	wrong := func(why string) error {
		return cronError("The %s (%s field) is %q: %s. Write %s, with * for every one, */5 for every fifth, 1-5 for a range, and commas between several.", f.name, f.place, part, why, f.values)
	}
	switch {
	case strings.HasPrefix(part, ",") || strings.HasSuffix(part, ",") || strings.Contains(part, ",,"):
		return 0, wrong("a comma stands alone")
	case strings.ContainsAny(part, "?"):
		return 0, wrong("? is not understood, * says the same")
	case strings.ContainsAny(part, "#") || i != 3 && strings.HasSuffix(strings.ToUpper(part), "L") || i == 2 && strings.ContainsAny(part, "wW"):
		return 0, wrong("L, W and # are not understood")
	}
	if i == 4 {
		part = sundayIsZero(part)
	}
	line := [5]string{"*", "*", "*", "*", "*"}
	line[i] = part
	parsed, err := fieldParser.Parse(strings.Join(line[:], " "))
	if err != nil {
		return 0, wrong(reason(err.Error()))
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return 0, wrong("it cannot be read")
	}
	set := [5]uint64{spec.Minute, spec.Hour, spec.Dom, spec.Month, spec.Dow}[i] & valueBits
	if set == 0 {
		return 0, wrong("it names nothing")
	}
	return set, nil
}

// reason puts what the library says into plainer words.
func reason(text string) string {
	switch {
	case strings.Contains(text, "above maximum"), strings.Contains(text, "below minimum"):
		return "that is out of range"
	case strings.Contains(text, "beyond end of range"):
		return "the range ends before it begins"
	case strings.Contains(text, "step of range"):
		return "the number after / is 0"
	default:
		return "it cannot be read"
	}
}

var weekdayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

var upToSunday = regexp.MustCompile(`^([0-6]|[A-Za-z]{3}|7)-7(/[0-9]+)?$`)

// sundayIsZero writes the 7 that many crontabs use for Sunday as the 0 that the
// library knows.
func sundayIsZero(part string) string {
	items := strings.Split(part, ",")
	for i, item := range items {
		if item == "7" {
			items[i] = "0"
			continue
		}
		m := upToSunday.FindStringSubmatch(item)
		if m == nil {
			continue
		}
		from, err := strconv.Atoi(m[1])
		if err != nil {
			from = slices.Index(weekdayNames, strings.ToLower(m[1]))
		}
		if from < 0 {
			continue // no day is called so: the library says it
		}
		step := 1
		if m[2] != "" {
			step, _ = strconv.Atoi(m[2][1:])
		}
		if step <= 0 || step > 7 {
			continue // the library says what is wrong
		}
		var days []string
		for d := from; d <= 7; d += step {
			days = append(days, strconv.Itoa(d%7))
		}
		items[i] = strings.Join(days, ",")
	}
	return strings.Join(items, ",")
}

// String is the line as it was written.
func (c *Cron) String() string { return c.expr }

// hourly says that every hour of the day counts: such a line follows the time that
// passes, others follow the clock on the wall.
func (c *Cron) hourly() bool { return bits.OnesCount64(c.hour) == 24 }

// onDay says whether it runs on a date. As in every crontab either of the two days is
// enough when both are named.
func (c *Cron) onDay(d time.Time) bool {
	if c.month&(1<<d.Month()) == 0 {
		return false
	}
	day, weekday := c.day&(1<<d.Day()) != 0, c.weekday&(1<<d.Weekday()) != 0
	if c.anyDay || c.anyWeekday {
		return day && weekday
	}
	return day || weekday
}

// Next is the first run after a time; zero when there is none. On the days on which
// clocks change, a run in an hour that does not exist comes once, right after it; one
// in an hour that comes twice, the first time. A line for every hour runs in each hour
// that passes.
func (c *Cron) Next(after time.Time, zone *time.Location) time.Time {
	clock := notifications.ClockOf(after, zone)
	date := time.Date(clock.Year(), clock.Month(), clock.Day(), 0, 0, 0, 0, time.UTC)
	for range horizon {
		if c.onDay(date) {
			if at := c.nextOn(date, after, zone); !at.IsZero() {
				return at.UTC()
			}
		}
		date = date.AddDate(0, 0, 1)
	}
	return time.Time{}
}

// nextOn is the first run of a date after a time; zero when there is none.
func (c *Cron) nextOn(date, after time.Time, zone *time.Location) time.Time {
	if c.hourly() {
		at, end := notifications.AtClock(date, zone), notifications.AtClock(date.AddDate(0, 0, 1), zone)
		if from := after.Truncate(time.Minute).Add(time.Minute); from.After(at) {
			at = from
		}
		for ; at.Before(end); at = at.Add(time.Minute) {
			if c.minute&(1<<at.In(zone).Minute()) != 0 {
				return at
			}
		}
		return time.Time{}
	}
	for h := range 24 {
		if c.hour&(1<<h) == 0 {
			continue
		}
		for m := range 60 {
			if c.minute&(1<<m) == 0 {
				continue
			}
			if at := notifications.AtClock(date.Add(time.Duration(h)*time.Hour+time.Duration(m)*time.Minute), zone); at.After(after) {
				return at
			}
		}
	}
	return time.Time{}
}

// Upcoming are the next n runs after a time.
func (c *Cron) Upcoming(after time.Time, zone *time.Location, n int) []time.Time {
	var all []time.Time
	for len(all) < n {
		after = c.Next(after, zone)
		if after.IsZero() {
			break
		}
		all = append(all, after)
	}
	return all
}

// mostMissed bounds the counting of missed runs.
const mostMissed = 10000

// Missed tells about the runs from a due one up to now: which is the last, and how
// many came before it.
func (c *Cron) Missed(due, now time.Time, zone *time.Location) (last time.Time, before int) {
	last = due
	for before < mostMissed {
		next := c.Next(last, zone)
		if next.IsZero() || next.After(now) {
			return last, before
		}
		last = next
		before++
	}
	// So many: what the last one was does not matter to anybody, but it is not in the
	// future, and the next one comes after now.
	return now.Truncate(time.Minute).UTC(), before
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%s %ss", grouped(int64(n)), what)
}

// grouped writes 12345 as 12,345.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
