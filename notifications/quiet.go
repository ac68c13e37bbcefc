package notifications

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// A message that comes at night waits until the morning, as a pending delivery with
// the time in nextAttemptAt: no worker is held. Two things decide what night is: what
// people set for themselves (quietFrom and quietTo of their preferences), and for
// promotional SMS and push the hours that the law of most countries leaves for them.

// HoursOfDay are the hours of a day, on anybody's clock. The zero value is all day.
type HoursOfDay struct {
	From, To time.Duration // since midnight; From is before To
}

// LawfulHours are the hours in which promotional SMS and push may reach people, unless
// something else was set. A text that comes earlier or later breaks the law in the
// United States and is refused by carriers elsewhere too.
var LawfulHours = HoursOfDay{8 * time.Hour, 21 * time.Hour}

// IsLawful says whether hours keep within [LawfulHours].
func (h HoursOfDay) IsLawful() bool {
	return h != HoursOfDay{} && h.From >= LawfulHours.From && h.To <= LawfulHours.To
}

var hoursPattern = regexp.MustCompile(`^([01][0-9]|2[0-3]):([0-5][0-9])-(([01][0-9]|2[0-3]):([0-5][0-9])|24:00)$`)

// ParseHours reads hours such as "08:00-21:00"; "off" is all day, and "" is
// [LawfulHours].
func ParseHours(text string) (HoursOfDay, error) {
	switch text = strings.ReplaceAll(text, " ", ""); {
	case text == "":
		return LawfulHours, nil
	case text == "off":
		return HoursOfDay{}, nil
	case !hoursPattern.MatchString(text):
		return HoursOfDay{}, errors.New(`hours are written like 08:00-21:00; "off" means all day`)
	}
	from, to, _ := strings.Cut(text, "-")
	h := HoursOfDay{sinceMidnight(from), sinceMidnight(to)}
	if h.To-h.From < time.Hour {
		return HoursOfDay{}, errors.New("the hours must be one at least, within a day: write them like 08:00-21:00")
	}
	return h, nil
}

// sinceMidnight is a time of day such as 22:30; what is none is midnight.
func sinceMidnight(text string) time.Duration {
	hour, minute, _ := strings.Cut(text, ":")
	h, _ := strconv.Atoi(hour)
	m, _ := strconv.Atoi(minute)
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
}

// openHours are hours of the day in one zone in which a message may come; from after
// to means that they go on over midnight.
type openHours struct {
	zone     *time.Location
	from, to time.Duration // since midnight; to is outside
}

// opens is the first moment from t on that is in the hours.
func (o openHours) opens(t time.Time) time.Time {
	for {
		local := t.In(o.zone)
		h, m, s := local.Clock()
		clock := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second + time.Duration(local.Nanosecond())
		switch {
		case o.from <= o.to && o.from <= clock && clock < o.to, o.from > o.to && (clock >= o.from || clock < o.to):
			return t
		}
		wait := o.from - clock
		if wait <= 0 {
			wait += 24 * time.Hour
		}
		next := t.Add(wait)
		if _, end := local.ZoneBounds(); !end.IsZero() && !end.After(next) {
			next = end // the clock jumps before: it is looked at anew
		}
		t = next
	}
}

// hold is when a person may be reached; nil means at any time.
type hold struct{ all []openHours }

// maxHold is how far ahead a moment is looked for that suits all of a hold.
const maxHold = 8 * 24 * time.Hour

// until is the first moment from t on that suits; the zero time when there is none.
func (h *hold) until(t time.Time) time.Time {
	if h == nil {
		return t
	}
	for start := t; t.Sub(start) < maxHold; {
		before := t
		for _, o := range h.all {
			t = o.opens(t)
		}
		if t.Equal(before) {
			return t
		}
	}
	return time.Time{}
}

// result is what becomes of a message that may not go now; nil when it may.
func (h *hold) result(now, expires time.Time) *result {
	until := h.until(now)
	switch {
	case until.Equal(now):
		return nil
	case until.IsZero():
		return &result{Status: DeliverySkipped, Reason: ReasonQuietHours,
			Explanation: "There is no time of the day at which this may reach the person: it is either in their quiet hours or at night."}
	}
	shown := until.In(h.all[0].zone).Format("15:04 on 2 January 2006")
	if !expires.IsZero() && !until.Before(expires) {
		return &result{Status: DeliverySkipped, Reason: ReasonExpired,
			Explanation: "It came in this person's quiet hours, which last until " + shown + " on their clock, and its expiry time is before that."}
	}
	return &result{Status: DeliveryPending, Reason: ReasonQuietHours, NextAttemptAt: until, HeldUntil: until,
		Explanation: "Held back for quiet hours until " + shown + " on this person's clock."}
}

// closingMargin is how long before the end of the lawful hours the last promotional
// message is handed over: carriers take a moment.
const closingMargin = time.Minute

// findHolds returns the holds of people for the messages of one channel and category.
// Who is not in it may be reached at any time. It costs a query for a page of people,
// and two more where there is anything to hold.
func (s *Sender) findHolds(channel Channel, snapshot Snapshot, userIDs []string) (map[string]*hold, error) {
	switch {
	case channel == ChannelInbox || channel == ChannelPush && snapshot.Options.Silent: // they wake nobody
		return nil, nil
	case snapshot.CategoryKey == CategoryAccount:
		return nil, nil
	}
	lawful := HoursOfDay{}
	if snapshot.Kind == KindPromotional && channel != ChannelEmail {
		lawful = s.opts.PromotionalHours
	}
	wishes := map[string]HoursOfDay{}
	if !snapshot.Options.QuietHours || snapshot.Kind != KindTransactional {
		var err error
		if wishes, err = s.findQuietHours(channel, snapshot.Category, userIDs); err != nil {
			return nil, err
		}
	}
	ids := userIDs
	if lawful == (HoursOfDay{}) {
		ids = make([]string, 0, len(wishes))
		for id := range wishes {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	clocks, err := s.findClocks(ids)
	if err != nil {
		return nil, err
	}
	type key struct {
		zone    *time.Location
		country string
		wish    HoursOfDay
	}
	shared := map[key]*hold{} // a broadcast has few
	holds := make(map[string]*hold, len(ids))
	for _, id := range ids {
		c := clocks[id]
		k := key{zone: c.zone, wish: wishes[id]}
		if !c.known && lawful != (HoursOfDay{}) {
			k.country = phoneCountry(c.phone)
		}
		h := shared[k]
		if h == nil {
			h = &hold{}
			if k.wish != (HoursOfDay{}) {
				h.all = append(h.all, openHours{c.zone, k.wish.To, k.wish.From})
			}
			if lawful != (HoursOfDay{}) {
				for _, zone := range lawfulZones(c.zone, k.country) {
					h.all = append(h.all, openHours{zone, lawful.From, lawful.To - closingMargin})
				}
			}
			shared[k] = h
		}
		holds[id] = h
	}
	return holds, nil
}

// findQuietHours returns the quiet hours that people set for a channel and category:
// of a person's rows that match, the one that says more, a category before a channel.
func (s *Sender) findQuietHours(channel Channel, category string, userIDs []string) (map[string]HoursOfDay, error) {
	table, err := tableName(s.app, CollectionPreferences)
	if err != nil {
		return nil, err
	}
	quiet := map[string]HoursOfDay{}
	var some []int
	// In most apps nobody has any; an index holds those that do.
	if err := s.app.ConcurrentDB().NewQuery("SELECT 1 FROM {{" + table + "}} WHERE [[quietFrom]] <> '' LIMIT 1").Column(&some); err != nil {
		return nil, fmt.Errorf("find quiet hours: %w", err)
	}
	if len(some) == 0 {
		return quiet, nil
	}
	var rows []struct {
		User string `db:"user"`
		From string `db:"quietFrom"`
		To   string `db:"quietTo"`
	}
	err = s.app.ConcurrentDB().NewQuery("SELECT [[user]], [[quietFrom]], [[quietTo]] FROM {{" + table + "}} WHERE [[quietFrom]] <> '' AND [[quietTo]] <> ''" +
		" AND [[user]] IN (SELECT value FROM json_each({:users})) AND [[category]] IN ('', {:category}) AND [[channel]] IN ('', {:channel})" +
		" ORDER BY [[category]] <> '', [[channel]] <> ''").
		Bind(dbx.Params{"category": category, "channel": string(channel), "users": mustJSON(userIDs)}).All(&rows)
	if err != nil {
		return nil, fmt.Errorf("find quiet hours: %w", err)
	}
	for _, r := range rows {
		if from, to := sinceMidnight(r.From), sinceMidnight(r.To); from != to {
			quiet[r.User] = HoursOfDay{from, to}
		}
	}
	return quiet, nil
}

// CheckQuietHours refuses quiet hours that are none.
func CheckQuietHours(preference *core.Record) error {
	from, to := preference.GetString("quietFrom"), preference.GetString("quietTo")
	switch {
	case from == "" && to != "":
		return FieldErrors{"quietFrom": {"quietFrom", "required", "Say when the quiet hours begin too, such as 22:00, or leave both empty."}}
	case from != "" && to == "":
		return FieldErrors{"quietTo": {"quietTo", "required", "Say when the quiet hours end too, such as 07:00, or leave both empty."}}
	case from != "" && from == to:
		return FieldErrors{"quietTo": {"quietTo", "same", "Quiet hours that end when they begin are none: choose another time, or leave both empty."}}
	}
	return nil
}
