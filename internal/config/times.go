package config

import (
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
