package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications"
)

// people live in several zones. Their addresses and numbers belong to nobody: both
// are reserved for examples. Offers reach those who agreed to them by e-mail.
var people = []struct {
	name, zone, locale, phone string
	agreed                    bool
}{
	{"Ana", "Europe/Berlin", "en", "+447700900101", true},
	{"Bo", "America/New_York", "en", "+447700900102", true}, // has bought nothing yet
	{"Cleo", "Europe/Paris", "fr", "+447700900103", true},
	{"Dan", "Asia/Tokyo", "en", "+447700900104", false},
	{"Emma", "Europe/Lisbon", "en", "", false},
}

var products = []struct {
	name  string
	price int
}{
	{"Teapot", 39}, {"Green tea", 12}, {"Tea cups", 24}, {"Honey", 9}, {"Kettle", 59}, {"Desk lamp", 45}, {"Notebook", 7},
}

// orders make Ana lack two things that people like her have, the tea cups and the
// honey. A cancelled order counts for nothing, and nobody shares Emma's taste.
var orders = []struct {
	buyer, status string
	items         []string
	days          int // from now to the delivery
}{
	{"Dan", "delivered", []string{"Green tea", "Honey", "Tea cups"}, -12},
	{"Cleo", "delivered", []string{"Teapot", "Tea cups"}, -9},
	{"Emma", "delivered", []string{"Desk lamp", "Notebook"}, -8},
	{"Dan", "cancelled", []string{"Kettle"}, -7},
	{"Ana", "delivered", []string{"Teapot", "Green tea"}, -5},
	{"Ana", "placed", []string{"Green tea"}, 2},
}

func (s *shop) addPeople() error {
	s.people = map[string]string{}
	for _, p := range people {
		r := core.NewRecord(s.users)
		r.Load(map[string]any{"name": p.name, "timezone": p.zone, "locale": p.locale, "phone": p.phone, "phoneVerified": p.phone != ""})
		r.SetEmail(strings.ToLower(p.name) + "@example.com")
		r.SetPassword(Password)
		r.SetVerified(true)
		if err := s.app.SaveWithContext(notifications.AsServer(context.Background()), r); err != nil {
			return fmt.Errorf("make %s: %w", p.name, err)
		}
		s.people[p.name] = r.Id
		if !p.agreed {
			continue
		}
		if _, err := s.save(notifications.CollectionConsents, map[string]any{"user": r.Id, "channel": string(notifications.ChannelEmail), "granted": true,
			"source": "Demo", "wording": "Yes, send me recommendations by e-mail. I can stop them at any time."}); err != nil {
			return err
		}
	}
	return nil
}

func (s *shop) addProducts() error {
	s.products = map[string]string{}
	for _, p := range products {
		id, err := s.save(productsID, map[string]any{"name": p.name, "price": p.price})
		if err != nil {
			return err
		}
		s.products[p.name] = id
	}
	return nil
}

func (s *shop) addOrders() error {
	morning := time.Date(s.now.Year(), s.now.Month(), s.now.Day(), 9, 0, 0, 0, time.UTC)
	for _, o := range orders {
		items := make([]string, len(o.items))
		for i, name := range o.items {
			items[i] = s.products[name]
		}
		if _, err := s.save(ordersID, map[string]any{"buyer": s.people[o.buyer], "items": items, "status": o.status, "deliverAt": morning.AddDate(0, 0, o.days)}); err != nil {
			return err
		}
	}
	return nil
}
