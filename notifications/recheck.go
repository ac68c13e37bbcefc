package notifications

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
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
	return finding{}, nil
}

// addressOf is a person's address on a channel as it is now; empty for a person
// who is gone.
func (s *Sender) addressOf(userID string, channel Channel) (string, error) {
	users, err := UsersCollection(s.app)
	if err != nil {
		return "", err
	}
	column := "email"
	if channel == ChannelSMS {
		column = "phone"
	}
	var address string
	err = s.app.ConcurrentDB().Select(column).From(users.Name).Where(dbx.HashExp{"id": userID}).Row(&address)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("find address of %s: %w", userID, err)
	}
	return address, nil
}

// spellings are the addresses of rows as the suppression list has them, in lower
// case, and as the person has them.
func spellings(rows []*deliveryRow, targets map[string]target) []string {
	out := make([]string, 0, len(rows))
	for _, row := range rows {
		a := targets[row.ID].address
		if a == "" {
			continue
		}
		lower := strings.ToLower(a)
		if out = append(out, lower); a != lower {
			out = append(out, a)
		}
	}
	return out
}
