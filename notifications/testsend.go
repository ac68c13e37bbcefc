package notifications

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

// A test is a real message of a notification to one person or address. It goes
// the way of all messages (providers, suppressions, capture), but by a job of its
// own, and its rows are marked: nothing that counts, retries, pauses or cancels the
// notification looks at them.

// TestRequest says who gets a test: a person or an address.
type TestRequest struct {
	User string // id

	// Address is an e-mail address or a phone number, of whomever.
	Address string

	// Sample is the id of the person whose values the texts show, for an address;
	// empty shows empty ones.
	Sample string

	// Channels are some of the notification's; none means all that reach.
	Channels []Channel

	RequestID string
}

// TestDelivery is one message of a test.
type TestDelivery struct {
	ID      string         `json:"id"`
	Channel Channel        `json:"channel"`
	Status  DeliveryStatus `json:"status"`
}

// TestArgs sends the messages of one test.
type TestArgs struct {
	Notification string   `json:"notification"`
	Deliveries   []string `json:"deliveries"`

	// Address is sealed: it may be that of somebody who has no account.
	Address []byte `json:"address,omitempty"`
}

// Kind implements [jobs.Args].
func (TestArgs) Kind() string { return "notification.test" }

const purposeTest = "test address"

// SendTest stores the deliveries of a test and the job that sends them. Errors:
// sql.ErrNoRows when there is no such notification, [FieldErrors], [*RefusedError].
func (s *Sender) SendTest(id string, r TestRequest) ([]TestDelivery, error) {
	var all []TestDelivery
	err := s.app.RunInTransaction(func(txApp core.App) error {
		all = nil
		n, err := FindNotificationByID(txApp, id)
		if err != nil {
			return err
		}
		snapshot, compiled, err := n.testContent(txApp, s.now())
		if err != nil {
			return err
		}
		person, channels, err := n.testTarget(txApp, &r)
		if err != nil {
			return err
		}
		if person != nil {
			if err := n.tryTest(txApp, snapshot, compiled, person); err != nil {
				return err
			}
		}
		rows, err := s.testRows(txApp, n, snapshot, person, channels, r)
		if err != nil {
			return err
		}
		args := TestArgs{Notification: n.Id}
		for _, row := range rows {
			if err := insertRow(txApp, row); err != nil {
				return err
			}
			all = append(all, TestDelivery{row.ID, Channel(row.Channel), DeliveryStatus(row.Status)})
			if row.Status == string(DeliveryPending) {
				args.Deliveries = append(args.Deliveries, row.ID)
			}
		}
		if len(args.Deliveries) == 0 {
			return nil
		}
		if r.Address != "" {
			if args.Address, err = s.sealed.Seal(purposeTest, []byte(r.Address)); err != nil {
				return fmt.Errorf("seal address of a test: %w", err)
			}
		}
		_, err = jobs.Enqueue(txApp, args, jobs.Options{RequestID: r.RequestID})
		return err
	})
	return all, err
}

// testContent is what a notification says: as it was sent, or as it is now.
func (n *Notification) testContent(app core.App, now time.Time) (Snapshot, *Compiled, error) {
	switch n.Status() {
	case StatusDraft, StatusScheduled:
	default:
		snapshot, err := n.Snapshot()
		if err != nil {
			return snapshot, nil, err
		}
		if snapshot.Kind == "" {
			return snapshot, nil, &RefusedError{"What this notification said is not kept any more: duplicate it and test the copy."}
		}
		compiled, err := Compile(snapshot.Content)
		return snapshot, compiled, err
	}
	if err := n.Check(app, now); err != nil {
		return Snapshot{}, nil, err
	}
	errs := FieldErrors{}
	if len(n.Channels()) == 0 {
		errs.add("channels", "required", "Choose at least one channel: e-mail, inbox, push or SMS.")
	}
	snapshot, compiled, err := n.buildSnapshot(app, errs)
	if err == nil {
		err = errs.orNil()
	}
	return snapshot, compiled, err
}

// testTarget finds out who gets a test and on which channels. An address without a
// sample has no person. It brings the address into its one form.
func (n *Notification) testTarget(app core.App, r *TestRequest) (person *core.Record, channels []Channel, err error) {
	errs := FieldErrors{}
	users, err := UsersCollection(app)
	if err != nil {
		return nil, nil, err
	}
	channels = n.Channels()
	if len(r.Channels) > 0 {
		for _, channel := range r.Channels {
			if !slices.Contains(channels, channel) {
				errs.add("channels", "not_of_it", fmt.Sprintf("This notification does not go out by %q: choose from its own channels.", channel))
			}
		}
		channels = r.Channels
	}
	find := func(field, id string) {
		if person, err = app.FindRecordById(users, id); errors.Is(err, sql.ErrNoRows) {
			person, err = nil, nil
			errs.add(field, "not_found", "There is no person with this id.")
		}
	}
	switch {
	case (r.User == "") == (r.Address == ""):
		errs.add("user", "required", "Say who gets the test: either a user (the id of a person) or an address (an e-mail address or phone number).")
	case r.User != "":
		find("user", r.User)
	default:
		channel := ChannelSMS
		if strings.Contains(r.Address, "@") {
			channel = ChannelEmail
		}
		address, wrong := NormalizeAddress(channel, r.Address)
		switch {
		case wrong != nil:
			errs.add("address", "invalid_address", "This is neither an e-mail address nor a phone number with its country code: write it like name@example.com or +4915112345678.")
		case !slices.Contains(channels, channel):
			errs.add("address", "not_of_it", fmt.Sprintf("This notification does not go out by %s: add the channel to it, or test it with another address.", channel))
		}
		r.Address, channels = address, []Channel{channel}
		if r.Sample != "" {
			find("sample", r.Sample)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find person of a test: %w", err)
	}
	return person, channels, errs.orNil()
}

// tryTest renders for the person, so that what is wrong is told now.
func (n *Notification) tryTest(app core.App, s Snapshot, compiled *Compiled, user *core.Record) error {
	person, err := findSample(app, Audience{}, s, user.Id)
	if err != nil {
		return FieldErrors{}.addedOr("template", err)
	}
	if s.DataFrom != "" && len(person.rows) == 0 {
		return nil // its delivery says so
	}
	if _, err := compiled.In(user.GetString("locale")).Render(person.vars(n, s), ""); err != nil {
		if n.Template() != "" {
			return FieldErrors{}.addedOr("template", err)
		}
		return FieldErrors{}.addedOr("body", err)
	}
	return nil
}

// testRows makes the deliveries of a test.
func (s *Sender) testRows(app core.App, n *Notification, snapshot Snapshot, person *core.Record, channels []Channel, r TestRequest) ([]*deliveryRow, error) {
	now := s.now()
	next := newDeliveryIDs(now, 4)
	user := ""
	if person != nil {
		user = person.Id
	}
	var rows []*deliveryRow
	add := func(channel Channel, device, address, missing string) {
		id := next()
		row := &deliveryRow{ID: id, Notification: n.Id, User: user, Device: device, Target: "test/" + id, Channel: string(channel), Kind: string(snapshot.Kind),
			Category: snapshot.Category, Address: MaskAddress(channel, address), Status: string(DeliveryPending), RequestID: r.RequestID, Created: dbTime(now), Test: true}
		if address == "" {
			row.Status, row.Reason, row.Explanation = string(DeliverySkipped), ReasonNoAddress, missing
		}
		rows = append(rows, row)
	}
	for _, channel := range channels {
		switch {
		case r.Address != "":
			add(channel, "", r.Address, "")
		case channel == ChannelEmail:
			add(channel, "", person.Email(), "This person has no e-mail address.")
		case channel == ChannelSMS:
			add(channel, "", person.GetString("phone"), "This person has no phone number.")
		case channel == ChannelInbox:
			add(channel, "", orElse(person.Email(), user), "")
		case channel == ChannelPush:
			devices, err := findDevices(app, "user", []string{user})
			if err != nil {
				return nil, err
			}
			if len(devices) == 0 {
				add(channel, "", "", "This person has no device that takes push messages.")
			}
			for _, d := range devices {
				add(channel, d.ID, d.Token, "")
			}
		}
	}
	return rows, nil
}

type testWorker struct{ s *Sender }

// Timeout implements [jobs.Timeouter].
func (testWorker) Timeout() time.Duration { return -1 }

// Work implements [jobs.Worker].
func (w testWorker) Work(ctx context.Context, job *jobs.Job[TestArgs]) error {
	ctx = withQueue(ctx, job.Queue)
	for {
		wait, err := w.s.sendTest(ctx, job.Args)
		switch {
		case err != nil:
			return err
		case wait < 0:
			return nil
		case wait > 0:
			return jobs.Snooze(max(wait, time.Second))
		}
	}
}

// sendTest makes one pass over a test. wait is how long until the next one;
// negative when there is nothing left to do.
func (s *Sender) sendTest(ctx context.Context, args TestArgs) (wait time.Duration, err error) {
	rows, err := s.findDeliveries(dbx.HashExp{"id": anySlice(args.Deliveries), "status": []any{string(DeliveryPending), string(DeliverySending)}}, len(args.Deliveries))
	if err != nil || len(rows) == 0 {
		return -1, err
	}
	var stored sync.WaitGroup
	finish := func(rows []*deliveryRow, r *result) {
		for _, row := range rows {
			s.ledger.finish(row, r, &stored)
		}
		s.ledger.await(&stored)
	}
	for _, row := range rows {
		row.Notification = "" // whether that is paused or over is no matter to a test
	}
	sending := slices.DeleteFunc(slices.Clone(rows), func(row *deliveryRow) bool { return !row.interrupted(s.now()) })
	if len(sending) > 0 {
		for _, row := range sending {
			finish([]*deliveryRow{row}, interruptedResult(row))
		}
		return 0, nil
	}
	n, err := FindNotificationByID(s.app, args.Notification)
	if errors.Is(err, sql.ErrNoRows) {
		finish(rows, &result{Status: DeliveryCancelled, Reason: ReasonCancelled, Explanation: "The notification was deleted before its test went out."})
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	snapshot, compiled, err := n.testContent(s.app, s.now())
	if err != nil {
		var field FieldErrors
		if sentence, refused := IsRefused(err); refused || errors.As(err, &field) {
			finish(rows, &result{Status: DeliveryFailed, Reason: ReasonTemplateFailed, Explanation: orElse(sentence, err.Error())})
			return -1, nil
		}
		return 0, err
	}
	address, err := s.openTestAddress(args)
	if err != nil {
		return 0, err
	}

	due, wait := splitDue(rows, s.now())
	if len(due) == 0 {
		return wait, nil
	}
	byChannel := map[string][]*deliveryRow{}
	for _, row := range due {
		byChannel[row.Channel] = append(byChannel[row.Channel], row)
	}
	for channel, rows := range byChannel {
		pass, err := s.sendTestRows(ctx, n, snapshot, compiled, rows, address)
		switch {
		case err != nil:
			return 0, err
		case pass.paused != "":
			// The owner waits for an answer, not for the provider.
			finish(rows, &result{Status: DeliveryFailed, Reason: ReasonProviderPaused, Explanation: pass.paused})
		case pass.down > 0 || pass.crowded > 0:
			return max(pass.down, pass.crowded), nil
		}
		s.log.Info("test sent", "notification", n.Id, "channel", channel, "deliveries", len(rows))
	}
	return 0, ctx.Err()
}

func (s *Sender) openTestAddress(args TestArgs) (string, error) {
	if len(args.Address) == 0 {
		return "", nil
	}
	address, err := s.sealed.Open(purposeTest, args.Address)
	if err != nil {
		return "", jobs.Cancel(fmt.Errorf("open address of a test: %w", err))
	}
	return string(address), nil
}

// sendTestRows hands over rows of one channel of a test.
func (s *Sender) sendTestRows(ctx context.Context, n *Notification, snapshot Snapshot, compiled *Compiled, rows []*deliveryRow, address string) (passResult, error) {
	channel := Channel(rows[0].Channel)
	if address != "" {
		if err := s.addressTest(rows, channel, address); err != nil {
			return passResult{}, err
		}
	}
	items, stored, err := s.prepare(n, snapshot, compiled, rows, &claim{uncounted: true})
	if err != nil {
		return passResult{}, err
	}
	if channel == ChannelInbox {
		err := s.deliverInbox(ctx, items)
		s.ledger.await(stored)
		return passResult{}, err
	}
	if address != "" {
		for i := range items {
			items[i].snapshot = nil // it is nobody's address, that could have become another one
		}
	}
	return s.handOverAll(ctx, items, stored)
}

// addressTest puts an address in the place of the sample person's, or of nobody's.
func (s *Sender) addressTest(rows []*deliveryRow, channel Channel, address string) error {
	users, err := UsersCollection(s.app)
	if err != nil {
		return err
	}
	user := core.NewRecord(users)
	if id := rows[0].User; id != "" {
		switch found, err := s.app.FindRecordById(users, id); {
		case errors.Is(err, sql.ErrNoRows):
			return nil // the delivery says so
		case err != nil:
			return fmt.Errorf("find person of a test: %w", err)
		default:
			user = found
		}
	} else if channel == ChannelEmail {
		user.SetEmail(address)
	}
	person := recipientOf(user)
	person.Name, person.Lent = "", true
	if channel == ChannelEmail {
		person.Email = address
	} else {
		person.Phone = address
	}
	for _, row := range rows {
		row.person = person
	}
	return nil
}
