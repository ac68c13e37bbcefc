package notifications

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
)

// A category may say how many messages of it one person gets within some hours. What
// counts is what was handed over, by notification: on several channels and devices it
// is one message to the person. A pass looks its people up at once and claims a place
// for each until its results are stored, so that two notifications that are on their
// way together do not both take the last one.

const (
	// defaultCapWindow is the window of a cap that has none.
	defaultCapWindow = 24 * time.Hour

	// capReach is how long before the window a delivery may have been made that was
	// handed over in it. What was paused for longer is not counted.
	capReach = 30 * 24 * time.Hour
)

// frequencyCap is what a category allows.
type frequencyCap struct {
	category string // id
	most     int
	window   time.Duration
}

func (c *frequencyCap) result() *result {
	return &result{Status: DeliverySkipped, Reason: ReasonFrequencyCap,
		Explanation: fmt.Sprintf("This person has got as many messages of this category as its frequency cap allows: %d in %s.", c.most, plainHours(c.window))}
}

func plainHours(d time.Duration) string {
	if d == time.Hour {
		return "an hour"
	}
	return fmt.Sprintf("%d hours", int(d.Hours()))
}

// findCap returns the cap of a category as it is now; nil when there is none.
func (s *Sender) findCap(snapshot Snapshot) (*frequencyCap, error) {
	if snapshot.CategoryKey == CategoryAccount || snapshot.Category == "" {
		return nil, nil
	}
	table, err := tableName(s.app, CollectionCategories)
	if err != nil {
		return nil, err
	}
	c := frequencyCap{category: snapshot.Category}
	var hours int
	err = s.app.ConcurrentDB().Select("frequencyCap", "frequencyWindow").From(table).Where(dbx.HashExp{"id": snapshot.Category}).Row(&c.most, &hours)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && c.most <= 0:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("find cap of category %s: %w", snapshot.Category, err)
	}
	if c.window = time.Duration(hours) * time.Hour; hours <= 0 {
		c.window = defaultCapWindow
	}
	return &c, nil
}

// claims are the places that passes under way have taken.
type claims struct {
	mu         sync.Mutex
	categories map[string]*categoryClaims
}

// categoryClaims are those of one category. Its passes look up one after the other.
type categoryClaims struct {
	mu sync.Mutex
	// held says by person which notifications have a place, and for how many passes.
	held map[string]map[string]int
}

func (c *claims) of(category string) *categoryClaims {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.categories == nil {
		c.categories = map[string]*categoryClaims{}
	}
	if c.categories[category] == nil {
		c.categories[category] = &categoryClaims{held: map[string]map[string]int{}}
	}
	return c.categories[category]
}

// claim is what one pass has taken. The zero value has taken nothing, and nobody is
// over a cap.
type claim struct {
	of           *categoryClaims
	notification string
	users        []string
	over         map[string]*result // by person
	uncounted    bool               // a test: caps are not about it
}

// release gives the places back. What was handed over is counted by its row from now
// on.
func (c *claim) release() {
	if c.of == nil {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	for _, user := range c.users {
		byUser := c.of.held[user]
		if byUser[c.notification]--; byUser[c.notification] <= 0 {
			delete(byUser, c.notification)
		}
		if len(byUser) == 0 {
			delete(c.of.held, user)
		}
	}
	c.users = nil
}

// take claims a place for the person of each row, and notes who is over the cap.
func (c *claim) take(s *Sender, n *Notification, snapshot Snapshot, rows []*deliveryRow) error {
	if c.uncounted {
		return nil
	}
	limit, err := s.findCap(snapshot)
	if err != nil || limit == nil || len(rows) == 0 {
		return err
	}
	users := make([]string, 0, len(rows))
	for _, row := range rows {
		users = append(users, row.User)
	}
	slices.Sort(users)
	users = slices.Compact(users) // a person's devices share a place
	c.of, c.notification = s.claims.of(limit.category), n.Id
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	had, err := s.findHandedOver(limit, n.Id, users)
	if err != nil {
		return err
	}
	c.over = map[string]*result{}
	over := limit.result()
	for _, user := range users {
		taken := len(had[user])
		for other := range c.of.held[user] {
			if other != n.Id && !had[user][other] {
				taken++
			}
		}
		if taken >= limit.most {
			c.over[user] = over
			continue
		}
		if c.of.held[user] == nil {
			c.of.held[user] = map[string]int{}
		}
		c.of.held[user][n.Id]++
		c.users = append(c.users, user)
	}
	return nil
}

// findHandedOver returns which other notifications of the category people got within
// the window.
func (s *Sender) findHandedOver(limit *frequencyCap, notificationID string, users []string) (map[string]map[string]bool, error) {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return nil, err
	}
	since := s.now().Add(-limit.window)
	// Rows are numbered in about the order in which they were made, and ids begin with
	// that time: what is much older is left out without reading it.
	var last int64 // of those
	err = s.app.ConcurrentDB().NewQuery("SELECT [[rowid]] FROM {{" + table + "}} WHERE [[id]] < {:id} ORDER BY [[id]] DESC LIMIT 1").
		Bind(dbx.Params{"id": strconv.FormatInt(since.Add(-capReach).UnixMilli(), 36)}).Row(&last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("find the deliveries before a cap: %w", err)
	}
	var rows []struct {
		User         string `db:"user"`
		Notification string `db:"notification"`
	}
	err = s.app.ConcurrentDB().NewQuery("SELECT DISTINCT d.[[user]], d.[[notification]] FROM json_each({:users}) j CROSS JOIN {{" + table + "}} d ON d.[[user]] = j.value AND d.[[rowid]] > {:last}" +
		" WHERE d.[[category]] = {:category} AND d.[[notification]] NOT IN ('', {:notification}) AND d.[[status]] IN ('sending', 'accepted', 'delivered', 'opened', 'captured', 'unknown') AND NOT d.[[test]]" +
		" AND CASE WHEN d.[[acceptedAt]] <> '' THEN d.[[acceptedAt]] ELSE d.[[updated]] END > {:since}").
		Bind(dbx.Params{"users": mustJSON(users), "last": last, "category": limit.category, "notification": notificationID, "since": dbTime(since)}).All(&rows)
	if err != nil {
		return nil, fmt.Errorf("count deliveries of a cap: %w", err)
	}
	had := map[string]map[string]bool{}
	for _, r := range rows {
		if had[r.User] == nil {
			had[r.User] = map[string]bool{}
		}
		had[r.User][r.Notification] = true
	}
	return had, nil
}
