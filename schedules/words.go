package schedules

import (
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// Words says in plain words when it runs, such as "every Saturday at 09:00,
// Europe/Paris".
func (c *Cron) Words(zone *time.Location) string {
	text := c.times()
	days := c.days()
	switch {
	case strings.HasPrefix(text, "at "):
		text = days + " " + text
	case days != "every day":
		text += ", " + days
	}
	return text + ", " + zone.String()
}

// mostTimes is how many times of day are listed one by one.
const mostTimes = 6

// times are the times of day: "at 09:00 and 17:00", or "every 5 minutes".
func (c *Cron) times() string {
	minutes, hours := values(c.minute, 0, 59), values(c.hour, 0, 23)
	step := stepOf(minutes, 60)
	var often string
	switch {
	case len(minutes) == 60:
		often = "every minute"
	case len(minutes)*len(hours) <= mostTimes:
		var at []string
		for _, h := range hours {
			for _, m := range minutes {
				at = append(at, fmt.Sprintf("%02d:%02d", h, m))
			}
		}
		return "at " + list(at, "and")
	case step > 1:
		often = fmt.Sprintf("every %d minutes", step)
	case len(minutes) == 1 && minutes[0] == 0:
		often = "every hour"
		if len(hours) < 24 {
			if step := stepOf(hours, 24); step > 1 {
				return fmt.Sprintf("every %d hours from midnight on", step)
			}
			if !contiguous(hours) {
				return "at " + list(clocks(hours, 0), "and")
			}
			return fmt.Sprintf("every hour from %02d:00 to %02d:00", hours[0], hours[len(hours)-1])
		}
		return often
	default:
		word := "minutes"
		if len(minutes) == 1 && minutes[0] == 1 {
			word = "minute"
		}
		often = fmt.Sprintf("at %s %s past", list(numbers(minutes), "and"), word)
		switch {
		case len(hours) == 24:
			return "always " + often + " the hour"
		case stepOf(hours, 24) > 1:
			return fmt.Sprintf("always %s every %s hour from midnight on", often, ordinal(stepOf(hours, 24)))
		default:
			return "always " + often + " " + list(clocks(hours, 0), "and")
		}
	}
	switch {
	case len(hours) == 24:
		return often
	case contiguous(hours):
		return fmt.Sprintf("%s from %02d:%02d to %02d:%02d", often, hours[0], minutes[0], hours[len(hours)-1], minutes[len(minutes)-1])
	default:
		return often + " in the hours that begin at " + list(clocks(hours, 0), "and")
	}
}

// days are the days: "every Saturday", "every day", "on the 1st of every month".
func (c *Cron) days() string {
	days, weekdays, months := values(c.day, 1, 31), values(c.weekday, 0, 6), values(c.month, 1, 12)
	everyDay, everyWeekday := len(days) == 31, len(weekdays) == 7
	in := ""
	if len(months) < 12 {
		in = " in " + list(names(months, func(m int) string { return time.Month(m).String() }), "and")
	}
	switch {
	case everyDay && everyWeekday, !c.anyDay && !c.anyWeekday && (everyDay || everyWeekday):
		return "every day" + in
	case everyDay:
		return weekdayWords(weekdays) + in
	case everyWeekday:
		return "on " + c.dates(days, months)
	case c.anyDay || c.anyWeekday:
		return weekdayWords(weekdays) + ", only on " + c.dates(days, months)
	default:
		return "on " + c.dates(days, months) + " and also " + weekdayWords(weekdays) + in
	}
}

func (c *Cron) dates(days, months []int) string {
	of := "every month"
	if len(months) < 12 {
		of = list(names(months, func(m int) string { return time.Month(m).String() }), "and")
	}
	if len(days) > 2 && contiguous(days) {
		return fmt.Sprintf("the %s to the %s of %s", ordinal(days[0]), ordinal(days[len(days)-1]), of)
	}
	return "the " + list(names(days, ordinal), "and") + " of " + of
}

func weekdayWords(days []int) string {
	name := func(d int) string { return time.Weekday(d).String() }
	if len(days) == 2 && days[0] == 0 && days[1] == 6 {
		return "every Saturday and Sunday"
	}
	if len(days) > 2 && contiguous(days) {
		return fmt.Sprintf("%s to %s", name(days[0]), name(days[len(days)-1]))
	}
	if days[0] == 0 && len(days) > 1 {
		days = append(append([]int{}, days[1:]...), 0) // the week ends with Sunday in a list
	}
	return "every " + list(names(days, name), "and")
}

// When is a time on the clock of a zone, for people.
func When(t time.Time, zone *time.Location) string {
	return t.In(zone).Format("Monday 2 January 2006, 15:04")
}

func values(set uint64, from, to int) []int {
	all := make([]int, 0, bits.OnesCount64(set))
	for v := from; v <= to; v++ {
		if set&(1<<v) != 0 {
			all = append(all, v)
		}
	}
	return all
}

// stepOf is the distance between values that divide a whole evenly, from 0 on; 0 when
// they do not.
func stepOf(values []int, whole int) int {
	if len(values) < 2 || values[0] != 0 || whole%len(values) != 0 {
		return 0
	}
	step := whole / len(values)
	for i, v := range values {
		if v != i*step {
			return 0
		}
	}
	return step
}

func contiguous(values []int) bool {
	return len(values) > 0 && values[len(values)-1]-values[0] == len(values)-1
}

func numbers(values []int) []string {
	return names(values, func(v int) string { return fmt.Sprint(v) })
}

func clocks(hours []int, minute int) []string {
	return names(hours, func(h int) string { return fmt.Sprintf("%02d:%02d", h, minute) })
}

func names(values []int, name func(int) string) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = name(v)
	}
	return all
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprint(n) + suffix
}

// list joins words: a, b and c.
func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}
