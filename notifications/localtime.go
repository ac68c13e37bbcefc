package notifications

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// A notification with localTime goes out at one time on everybody's own clock. It is
// planned when that time comes in the first zone of the world, at once for everybody:
// people whose clocks show it at the same instant share batches, and each batch waits
// for its instant.

// StoreKeyTimezone is the app.Store() key under which package hooks puts the name of
// the zone that counts where nothing else is known. Nothing there means UTC.
const StoreKeyTimezone = "groundwork.timezone"

// DefaultZone is where people are of whom nothing else is known, and whose clock
// sendAt is read on when it is meant for everybody's own.
func DefaultZone(app core.App) *time.Location {
	name, _ := app.Store().Get(StoreKeyTimezone).(string)
	if zone := loadZone(name); zone != nil {
		return zone
	}
	return time.UTC
}

// loadZone returns a zone by its name, nil when there is none of that name. Of a
// server's own zone ("Local") nobody would know what it is, and what else lies among
// its zone files is no place.
func loadZone(name string) *time.Location {
	switch first, _, _ := strings.Cut(name, "/"); first {
	case "", "Local", "localtime", "posixrules", "posix", "right", "Factory":
		return nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil
	}
	return zone
}

const (
	// firstZone is how far clocks are ahead of UTC where each time comes first, and
	// lastZone how far they are behind it where it comes last.
	firstZone = 14 * time.Hour
	lastZone  = 12 * time.Hour

	// localPage is how many people of a notification with localTime are planned in
	// one transaction. It is larger than [pageSize], because they are spread over as
	// many batches as there are zones.
	localPage = 10 * pageSize

	// localGrace is how long ago a time of day may have come that still counts as
	// now, when nobody chose a date.
	localGrace = time.Minute
)

// clockOf is what a clock in zone shows at t, written as a time in UTC.
func clockOf(t time.Time, zone *time.Location) time.Time {
	t = t.In(zone)
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// atClock is the first instant at which a clock in zone shows clock, a date and time
// written in UTC. A time that is left out that day (daylight saving begins) is the
// first instant after the gap.
func atClock(clock time.Time, zone *time.Location) time.Time {
	// No clock in the history of any zone was ahead of UTC by more.
	for t := clock.Add(-16 * time.Hour).In(zone); ; {
		// From start until end the clock runs without a jump.
		start, end := t.ZoneBounds()
		_, offset := t.Zone()
		at := clock.Add(-time.Duration(offset) * time.Second)
		switch {
		case !start.IsZero() && at.Before(start):
			return start.UTC()
		case end.IsZero() || at.Before(end):
			return at.UTC()
		}
		t = end
	}
}

// LocalTime says whether sendAt is meant on everybody's own clock.
func (n *Notification) LocalTime() bool { return n.GetBool("localTime") }

// LocalClock is the date and time that a notification with localTime goes out at,
// written in UTC; zero when it has no sendAt.
func (n *Notification) LocalClock(app core.App) time.Time {
	if n.SendAt().IsZero() {
		return time.Time{}
	}
	return clockOf(n.SendAt(), DefaultZone(app))
}

// PlanAt is when a notification is planned: at sendAt; with localTime when that time
// comes for the first people. Zero means at once.
func (n *Notification) PlanAt(app core.App) time.Time {
	if !n.LocalTime() || n.SendAt().IsZero() {
		return n.SendAt()
	}
	return n.LocalClock(app).Add(-firstZone)
}

// checkLocalTime refuses a day that is over for everybody.
func (n *Notification) checkLocalTime(app core.App, now time.Time, errs FieldErrors) {
	clock := n.LocalClock(app)
	if !n.LocalTime() || clock.IsZero() {
		return
	}
	if !now.Before(endOfDay(clock).Add(lastZone)) {
		errs.add("sendAt", "in_the_past", "This day is over on everybody's clock: choose another date, or leave it empty for the next time that their clocks show the time of now.")
	}
}

// localReason tells when a notification with localTime goes out.
func (n *Notification) localReason(app core.App) string {
	clock := n.LocalClock(app)
	if !n.LocalTime() || clock.IsZero() {
		return ""
	}
	return "It goes out at " + clock.Format("15:04 on 2 January 2006") + " on each person's own clock."
}

func endOfDay(clock time.Time) time.Time {
	return time.Date(clock.Year(), clock.Month(), clock.Day()+1, 0, 0, 0, 0, time.UTC)
}

// localInstant is when the people of a zone get a notification with localTime. missed
// means that their day was over when it was planned.
func (p Plan) localInstant(zone *time.Location) (at time.Time, missed bool) {
	if !p.AnyDay {
		at = atClock(p.Clock, zone)
		return at, !p.Now.Before(atClock(endOfDay(p.Clock), zone))
	}
	today := clockOf(p.Now, zone)
	clock := time.Date(today.Year(), today.Month(), today.Day(), p.Clock.Hour(), p.Clock.Minute(), p.Clock.Second(), p.Clock.Nanosecond(), time.UTC)
	if at = atClock(clock, zone); at.Add(localGrace).Before(p.Now) {
		at = atClock(clock.AddDate(0, 0, 1), zone)
	}
	return at, false
}

// planLocalBatches is [planBatches] for localTime: for each instant a batch or
// several, in the order in which they are due.
func (s *Sender) planLocalBatches(n *Notification, userIDs []string, plan Plan) ([]plannedBatch, error) {
	clocks, err := s.findClocks(userIDs)
	if err != nil {
		return nil, err
	}
	type group struct {
		at     time.Time
		missed bool
		users  []string
	}
	var groups []*group
	byZone := map[*time.Location]*group{}
	for _, id := range userIDs {
		zone := clocks[id].zone
		g := byZone[zone]
		if g == nil {
			at, missed := plan.localInstant(zone)
			if at.Before(plan.Now) {
				at = plan.Now // at once
			}
			i := slices.IndexFunc(groups, func(g *group) bool { return g.at.Equal(at) && g.missed == missed })
			if i < 0 {
				i, groups = len(groups), append(groups, &group{at: at, missed: missed})
			}
			g = groups[i]
			byZone[zone] = g
		}
		g.users = append(g.users, id)
	}
	slices.SortFunc(groups, func(a, b *group) int { return a.at.Compare(b.at) })

	var batches []plannedBatch
	for _, g := range groups {
		for users := range slices.Chunk(g.users, pageSize) {
			for _, b := range planBatches(n, users, Plan{Batch: plan.Batch + len(batches)}) {
				b.Missed = g.missed
				if g.at.After(plan.Now) {
					b.RunAt = dbTime(g.at)
				}
				batches = append(batches, b)
			}
		}
	}
	return batches, nil
}

// personClock is whose clock a person lives by.
type personClock struct {
	zone *time.Location
	// known is false when it is the default zone for want of a better one.
	known bool
	phone string
}

// findClocks returns the clocks of people: in their own zone, or else in that of
// the device that they registered last, or else in the default zone.
func (s *Sender) findClocks(userIDs []string) (map[string]personClock, error) {
	users, err := UsersCollection(s.app)
	if err != nil {
		return nil, err
	}
	devices, err := tableName(s.app, CollectionDevices)
	if err != nil {
		return nil, err
	}
	var rows []struct {
		ID       string `db:"id"`
		Timezone string `db:"timezone"`
		Phone    string `db:"phone"`
	}
	err = s.app.ConcurrentDB().NewQuery("SELECT u.[[id]], u.[[phone]], CASE WHEN u.[[timezone]] <> '' THEN u.[[timezone]] ELSE COALESCE((SELECT d.[[timezone]] FROM {{" + devices +
		"}} d WHERE d.[[user]] = u.[[id]] AND d.[[status]] = 'active' AND d.[[timezone]] <> '' ORDER BY d.[[registeredAt]] DESC, d.[[id]] LIMIT 1), '') END AS [[timezone]]" +
		" FROM json_each({:ids}) j CROSS JOIN {{" + users.Name + "}} u ON u.[[id]] = j.value").Bind(dbx.Params{"ids": mustJSON(userIDs)}).All(&rows)
	if err != nil {
		return nil, fmt.Errorf("find time zones: %w", err)
	}
	fallback := DefaultZone(s.app)
	zones := map[string]*time.Location{}
	clocks := make(map[string]personClock, len(userIDs))
	for _, r := range rows {
		zone, seen := zones[r.Timezone]
		if !seen {
			zone = loadZone(r.Timezone)
			zones[r.Timezone] = zone
		}
		clocks[r.ID] = personClock{zone, zone != nil, r.Phone}
		if zone == nil {
			clocks[r.ID] = personClock{fallback, false, r.Phone}
		}
	}
	for _, id := range userIDs {
		if clocks[id].zone == nil {
			clocks[id] = personClock{zone: fallback} // deleted since
		}
	}
	return clocks, nil
}
