package config

import (
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // the container has no time zones of its own
)

// timezone reads the IANA name of a time zone.
func (r *reader) timezone(name string) string {
	zone := strings.TrimSpace(r.get(name))
	if _, err := time.LoadLocation(zone); err != nil || zone == "Local" {
		r.problem("%s is %q, which is not a time zone. Write it like Europe/Berlin.", name, zone)
	}
	return zone
}

var hoursPattern = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`)

// hours reads hours of the day such as 08:00-21:00, or "off".
func (r *reader) hours(name string) string {
	value := strings.ReplaceAll(r.get(name), " ", "")
	from, to, _ := strings.Cut(value, "-")
	if value != "" && value != "off" && (!hoursPattern.MatchString(value) || from >= to) {
		r.problem("%s is %q. Write hours like 08:00-21:00, or off for all day.", name, value)
	}
	return value
}
