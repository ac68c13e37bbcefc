package notifications

import (
	"fmt"
	"strings"

	"github.com/pocketbase/dbx"
)

// block is why a message must not be sent.
type block struct{ reason, sentence string }

// findBlocked returns the rows that must not be sent, by delivery id: suppressed
// addresses, people who switched the category off, and advertising without consent.
func (s *Sender) findBlocked(channel Channel, snapshot Snapshot, rows []*deliveryRow, targets map[string]target) (map[string]block, error) {
	blocked := map[string]block{}
	if channel == ChannelEmail || channel == ChannelSMS {
		if err := s.addSuppressed(blocked, channel, snapshot.Kind, rows, targets); err != nil {
			return nil, err
		}
	}
	if snapshot.optional() {
		if err := s.addOptedOut(blocked, channel, snapshot.Category, rows); err != nil {
			return nil, err
		}
	}
	if snapshot.Kind == KindPromotional && channel != ChannelInbox {
		if err := s.addWithoutConsent(blocked, channel, rows, targets); err != nil {
			return nil, err
		}
	}
	return blocked, nil
}

// addSuppressed adds the rows whose address is on the suppression list.
func (s *Sender) addSuppressed(blocked map[string]block, channel Channel, kind Kind, rows []*deliveryRow, targets map[string]target) error {
	table, err := tableName(s.app, CollectionSuppressions)
	if err != nil {
		return err
	}
	formsOf := make(map[string][]string, len(rows))
	var wanted []string
	for _, row := range rows {
		a := targets[row.ID].address
		if a == "" {
			continue
		}
		lower := strings.ToLower(a)
		formsOf[row.ID] = suppressedForms(s.app, channel, lower)
		if wanted = append(wanted, formsOf[row.ID]...); a != lower {
			wanted = append(wanted, a)
		}
	}
	in := "LOWER([[address]]) IN (SELECT value FROM json_each({:addresses}))"
	if len(rows) == 1 {
		// The list is in lower case anyway. Only so is its index of use: one message
		// cannot pay for reading all of it.
		in = "[[address]] IN (SELECT value FROM json_each({:addresses}))"
	}
	var found []struct {
		Address string `db:"address"`
		Reason  string `db:"reason"`
	}
	err = s.app.ConcurrentDB().NewQuery("SELECT LOWER([[address]]) AS [[address]], [[reason]] FROM {{" + table +
		"}} WHERE [[channel]] = {:channel} AND ([[kind]] = '' OR [[kind]] = {:kind}) AND " + in).
		Bind(dbx.Params{"channel": string(channel), "kind": string(kind), "addresses": mustJSON(wanted)}).All(&found)
	if err != nil {
		return fmt.Errorf("find suppressions: %w", err)
	}
	reasons := make(map[string]string, len(found))
	for _, f := range found {
		reasons[f.Address] = f.Reason
	}
	for _, row := range rows {
		for _, form := range formsOf[row.ID] {
			if reason, ok := reasons[form]; ok {
				blocked[row.ID] = block{ReasonSuppressed, "This address is on the suppression list (" + orElse(reason, "no reason given") + ")."}
			}
		}
	}
	return nil
}

// addOptedOut adds the rows of people who switched the category off on the channel.
func (s *Sender) addOptedOut(blocked map[string]block, channel Channel, category string, rows []*deliveryRow) error {
	table, err := tableName(s.app, CollectionPreferences)
	if err != nil {
		return err
	}
	// A row without a category or a channel is for all of them; the one that says
	// more about this message wins, a category before a channel.
	var found []struct {
		User    string `db:"user"`
		Enabled bool   `db:"enabled"`
	}
	err = s.app.ConcurrentDB().NewQuery("SELECT [[user]], [[enabled]] FROM {{" + table +
		"}} WHERE [[user]] IN (SELECT value FROM json_each({:users})) AND [[category]] IN ('', {:category}) AND [[channel]] IN ('', {:channel})" +
		" ORDER BY [[category]] <> '', [[channel]] <> ''").
		Bind(dbx.Params{"category": category, "channel": string(channel), "users": mustJSON(usersOf(rows))}).All(&found)
	if err != nil {
		return fmt.Errorf("find preferences: %w", err)
	}
	off := make(map[string]bool, len(found))
	for _, f := range found {
		off[f.User] = !f.Enabled
	}
	for _, row := range rows {
		if off[row.User] {
			blocked[row.ID] = block{ReasonOptedOut, "This person switched this category off on this channel."}
		}
	}
	return nil
}
