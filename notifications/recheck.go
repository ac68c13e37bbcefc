package notifications

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
)

// A pass reads people, devices and opt-outs once, for all its messages: no broadcast
// could afford more. But it may take hours, where a provider is slow or may only be
// sent so much a second, and meanwhile people go on living: they answer STOP, switch
// a category off, sign out, hand a phone on. So whatever waited longer than
// targetsInterval is looked at again right before it leaves.

// targetsInterval is how old the knowledge of whom a message reaches may be when it
// leaves.
const targetsInterval = time.Second

// finding is what a second look at a message shows; the zero value lets it go.
type finding struct {
	// skip is what the delivery ends with, unsent.
	skip *result
	// later leaves the delivery pending: the next pass finds the new address.
	later bool
	// hold is when the person may be reached, as it is now.
	hold *hold
}

func (f finding) stops() bool { return f.skip != nil || f.later }

// databaseSilent is why nothing leaves when a second look is not possible.
const databaseSilent = "The database cannot be read at the moment."

func skipped(reason, explanation string) finding {
	return finding{skip: &result{Status: DeliverySkipped, Reason: reason, Explanation: explanation}}
}

// isStale says whether what was read for a message is too old to send it by.
// Account mails never are: what they say is asked for, and by that address.
func (it *item) isStale() bool { return it.snapshot != nil && time.Since(it.read) > targetsInterval }

// lookAgain judges one e-mail or SMS anew.
func (s *Sender) lookAgain(it item) (finding, error) {
	channel := Channel(it.row.Channel)
	address, err := s.addressOf(it.row.User, channel)
	if err != nil {
		return finding{}, err
	}
	if address != it.msg.Target.Address {
		return finding{later: true}, nil
	}
	blocked, err := s.findBlocked(channel, *it.snapshot, []*deliveryRow{it.row}, map[string]target{it.row.ID: {address: address}})
	if err != nil {
		return finding{}, err
	}
	if b, ok := blocked[it.row.ID]; ok {
		return skipped(b.reason, b.sentence), nil
	}
	openers, err := s.findOpeners([]*deliveryRow{it.row})
	if err != nil {
		return finding{}, err
	}
	if openers[it.row.User] {
		return finding{skip: openedResult()}, nil
	}
	holds, err := s.findHolds(channel, *it.snapshot, []string{it.row.User})
	if err != nil {
		return finding{}, err
	}
	return finding{hold: holds[it.row.User]}, nil
}

// lookAgainTogether judges the e-mails or SMS that come next, and notes it in them: what
// lookAgain does for one, for those that leave within [targetsInterval] anyway.
func (s *Sender) lookAgainTogether(items []item) error {
	read := time.Now()
	channel, snapshot := Channel(items[0].row.Channel), *items[0].snapshot
	users, rows := make([]string, len(items)), make([]*deliveryRow, len(items))
	for i, it := range items {
		users[i], rows[i] = it.row.User, it.row
	}
	addresses, err := s.addressesOf(users, channel)
	if err != nil {
		return err
	}
	targets := make(map[string]target, len(items))
	for _, row := range rows {
		targets[row.ID] = target{address: addresses[row.User]}
	}
	blocked, err := s.findBlocked(channel, snapshot, rows, targets)
	if err != nil {
		return err
	}
	openers, err := s.findOpeners(rows)
	if err != nil {
		return err
	}
	holds, err := s.findHolds(channel, snapshot, users)
	if err != nil {
		return err
	}
	for i := range items {
		it := &items[i]
		it.read, it.finding, it.hold = read, finding{}, holds[it.row.User]
		switch b, isBlocked := blocked[it.row.ID]; {
		case addresses[it.row.User] != it.msg.Target.Address:
			it.finding.later = true
		case isBlocked:
			it.finding = skipped(b.reason, b.sentence)
		case openers[it.row.User]:
			it.finding = finding{skip: openedResult()}
		}
	}
	return nil
}

// addressesOf are the addresses of people on a channel as they are now.
func (s *Sender) addressesOf(userIDs []string, channel Channel) (map[string]string, error) {
	users, err := UsersCollection(s.app)
	if err != nil {
		return nil, err
	}
	var found []struct {
		ID      string `db:"id"`
		Address string `db:"address"`
	}
	err = s.app.ConcurrentDB().Select("id", addressColumn(channel)+" AS address").From(users.Name).
		Where(dbx.NewExp("[[id]] IN (SELECT value FROM json_each({:ids}))", dbx.Params{"ids": mustJSON(userIDs)})).All(&found)
	if err != nil {
		return nil, fmt.Errorf("find addresses of %d people: %w", len(userIDs), err)
	}
	addresses := make(map[string]string, len(found))
	for _, f := range found {
		addresses[f.ID] = f.Address
	}
	return addresses, nil
}

// addressOf is a person's address on a channel as it is now; empty for a person
// who is gone.
func (s *Sender) addressOf(userID string, channel Channel) (string, error) {
	users, err := UsersCollection(s.app)
	if err != nil {
		return "", err
	}
	var address string
	err = s.app.ConcurrentDB().Select(addressColumn(channel)).From(users.Name).Where(dbx.HashExp{"id": userID}).Row(&address)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("find address of %s: %w", userID, err)
	}
	return address, nil
}

// lookAgainAtDevices judges the pushes of a pass that are left, and notes it in
// them.
func (s *Sender) lookAgainAtDevices(items []item) error {
	read := time.Now()
	ids, users, rows := make([]string, len(items)), make([]string, len(items)), make([]*deliveryRow, len(items))
	for i, it := range items {
		ids[i], users[i], rows[i] = it.row.Device, it.row.User, it.row
	}
	devices, err := findDevices(s.app, "id", ids)
	if err != nil {
		return err
	}
	blocked, err := s.findBlocked(ChannelPush, *items[0].snapshot, rows, nil)
	if err != nil {
		return err
	}
	holds, err := s.findHolds(ChannelPush, *items[0].snapshot, users)
	if err != nil {
		return err
	}
	now := make(map[string]*deviceRow, len(devices))
	for i := range devices {
		now[devices[i].ID] = &devices[i]
	}
	for i := range items {
		it := &items[i]
		it.read, it.finding, it.hold = read, finding{}, holds[it.row.User]
		d := now[it.row.Device]
		switch b, isBlocked := blocked[it.row.ID]; {
		case d == nil || d.User != it.row.User:
			it.finding = skipped(ReasonNoAddress, "This person signed out on this device, or somebody else signed in on it, before the message went out.")
		case isBlocked:
			it.finding = skipped(b.reason, b.sentence)
		case d.Token != it.msg.Target.Address:
			it.finding.later = true
		}
	}
	return nil
}
