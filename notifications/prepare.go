package notifications

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// item is one message ready to be handed over.
type item struct {
	row      *deliveryRow
	msg      *Message
	route    Route
	snapshot *Snapshot // nil for an account mail
	read     time.Time // when its person, target and opt-outs were read
	finding  finding   // of a second look
	hold     *hold     // nil: may go at any time
	expires  time.Time // zero: never
	email    string    // the person's; always known only where [SenderOptions.SendOnlyTo] counts
}

// prepare renders the messages of rows. What can not be sent gets its result at
// once; stored collects what is on its way to the database. places takes what the
// frequency cap has left.
func (s *Sender) prepare(n *Notification, snapshot Snapshot, compiled *Compiled, rows []*deliveryRow, places *claim) (items []item, stored *sync.WaitGroup, err error) {
	m := &making{s: s, n: n, snapshot: &snapshot, compiled: compiled, channel: Channel(rows[0].Channel), stored: &sync.WaitGroup{}, read: time.Now()}
	defer func() {
		if err != nil {
			s.ledger.await(m.stored)
		}
	}()
	if err := m.lookUp(rows); err != nil {
		return nil, nil, err
	}
	if snapshot.DataFrom != "" {
		rows = slices.SortedStableFunc(slices.Values(rows), func(a, b *deliveryRow) int { return strings.Compare(a.User, b.User) })
	}
	m.data, err = newDataPages(s.app, snapshot, usersOf(rows))
	if sentence, gone := dataGone(err); gone {
		for _, row := range rows {
			m.finish(row, DeliveryFailed, ReasonTemplateFailed, sentence)
		}
		return nil, m.stored, nil
	}
	if err != nil {
		return nil, nil, err
	}
	going := m.sift(rows)
	if err := places.take(s, n, snapshot, going); err != nil {
		return nil, nil, err
	}
	items = make([]item, 0, len(going))
	for _, row := range going {
		if over := places.over[row.User]; over != nil {
			s.ledger.finish(row, over, m.stored)
			continue
		}
		it, ok, err := m.item(row)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			items = append(items, it)
		}
	}
	return items, m.stored, nil
}

// making is the making of the messages of one pass.
type making struct {
	s        *Sender
	n        *Notification
	snapshot *Snapshot
	compiled *Compiled
	channel  Channel
	stored   *sync.WaitGroup
	read     time.Time // when what follows was read

	people  map[string]*recipient // by id
	targets map[string]target     // by delivery, as all that follow unless said
	blocked map[string]block
	holds   map[string]*hold // by person
	openers map[string]bool  // by person
	badges  *badges
	data    *dataPages

	base, vars map[string]any
	push       *Push
	expires    time.Time
	needsLink  bool
	public     string
}

// lookUp reads what is known about the people of rows, all of it together.
func (m *making) lookUp(rows []*deliveryRow) (err error) {
	s := m.s
	if m.people, err = s.peopleOf(rows, m.compiled); err != nil {
		return err
	}
	if m.targets, err = s.targets(m.channel, rows, m.people); err != nil {
		return err
	}
	if m.blocked, err = s.findBlocked(m.channel, *m.snapshot, rows, m.targets); err != nil {
		return err
	}
	if m.holds, err = s.findHolds(m.channel, *m.snapshot, slices.Collect(maps.Keys(m.people))); err != nil {
		return err
	}
	if m.openers, err = s.findOpeners(rows); err != nil {
		return err
	}
	if m.badges, err = s.badges(m.channel, m.n, *m.snapshot, rows); err != nil {
		return err
	}
	m.base = baseVars(m.n, *m.snapshot)
	m.vars = maps.Clone(m.base)
	m.expires = m.n.ExpiresAt()
	m.push = m.snapshot.Options.push(m.n.Id, s.now(), m.expires)
	m.needsLink, m.public = needsUnsubscribeLink(m.channel, m.snapshot.Kind), s.publicURL()
	return nil
}

func (m *making) finish(row *deliveryRow, status DeliveryStatus, reason, explanation string) {
	m.s.ledger.finish(row, &result{Status: status, Reason: reason, Explanation: explanation}, m.stored)
}

// sift gives what cannot be sent, or not now, its result and returns the rest.
func (m *making) sift(rows []*deliveryRow) []*deliveryRow {
	now, maxAge := m.s.now(), m.s.opts.Retry.MaxAge
	going := make([]*deliveryRow, 0, len(rows))
	for _, row := range rows {
		block, isBlocked := m.blocked[row.ID]
		switch {
		case m.people[row.User] == nil:
			m.finish(row, DeliverySkipped, ReasonRecipientGone, "This person was deleted before the message went out.")
		case m.channel != ChannelInbox && m.targets[row.ID].address == "":
			m.finish(row, DeliverySkipped, ReasonNoAddress, "This person has no address on this channel any more.")
		case isBlocked:
			m.finish(row, DeliverySkipped, block.reason, block.sentence)
		case m.needsLink && m.public == "":
			m.finish(row, DeliveryFailed, ReasonNoPublicAddress, noPublicAddress)
		case now.Sub(row.dueSince()) > maxAge && row.hasFailed():
			m.finish(row, DeliveryFailed, ReasonRetriesExhausted, "It could not be handed over for "+plainDuration(maxAge)+", so it was given up.")
		case m.openers[row.User]:
			m.s.ledger.finish(row, openedResult(), m.stored)
		default:
			if r := m.holds[row.User].result(now, m.expires); r != nil {
				m.s.ledger.finish(row, r, m.stored)
				continue
			}
			going = append(going, row)
		}
	}
	return going
}

// item renders the message of a row. It is not ok when there is none: then the row has
// its result.
func (m *making) item(row *deliveryRow) (it item, ok bool, err error) {
	s, user, to := m.s, m.people[row.User], m.targets[row.ID]
	if m.compiled.loops() {
		m.vars = maps.Clone(m.base) // a loop that takes too long may still be reading the last ones
	}
	m.vars["user"] = user.Vars
	if m.data != nil {
		list, err := m.data.of(row.User)
		if sentence, gone := dataGone(err); gone {
			m.finish(row, DeliveryFailed, ReasonTemplateFailed, sentence)
			return item{}, false, nil
		}
		if err != nil {
			return item{}, false, err
		}
		if len(list) == 0 {
			m.finish(row, DeliverySkipped, ReasonNothingToSay, fmt.Sprintf(nothingToSay, m.data.source.Name))
			return item{}, false, nil
		}
		m.vars["rows"] = list
	}
	link := ""
	if m.needsLink {
		of := Unsubscription{Address: to.address, User: user.ID, Kind: m.snapshot.Kind, Category: m.snapshot.Category}
		if user.Lent {
			of.User = ""
		}
		link, err = s.unsubscribeLink(m.public, of)
		if err != nil {
			return item{}, false, err
		}
		m.vars[unsubscribeVar] = link
	}
	token := ""
	if m.channel != ChannelInbox {
		token = s.opts.OpenToken(row.ID)
		m.vars["openToken"] = token
	}
	rendered, err := m.compiled.In(localeOf(user, to)).Render(m.vars, m.channel)
	if err != nil {
		m.finish(row, DeliveryFailed, ReasonTemplateFailed, "The text could not be made for this person: "+err.Error())
		return item{}, false, nil
	}
	it = item{row: row, msg: newMessage(m.n, *m.snapshot, m.badges.over(m.push, user.ID), row, user, to, rendered), route: to.route,
		email: user.Email, snapshot: m.snapshot, read: m.read, hold: m.holds[row.User], expires: m.expires}
	if it.msg.OpenToken = token; m.snapshot.Options.Silent {
		it.msg.OpenToken = "" // nothing of it can be opened
	}
	switch {
	case m.needsLink:
		s.addUnsubscribe(it.msg.Email, link)
	case m.channel == ChannelSMS:
		it.msg.Body = s.SMSText(it.msg.Kind, it.msg.Body)
	}
	if !row.read.IsZero() {
		it.read = row.read
	}
	return it, true, nil
}

func baseVars(n *Notification, snapshot Snapshot) map[string]any {
	vars := map[string]any{"app": map[string]any{"name": snapshot.AppName, "url": snapshot.AppURL}, "openToken": ""}
	if snapshot.Kind == KindPromotional {
		vars[unsubscribeVar] = "" // each e-mail has its own; other channels have none
	}
	for k, v := range snapshot.Variables {
		if _, taken := vars[k]; !taken {
			vars[k] = v
		}
	}
	return vars
}

func newMessage(n *Notification, snapshot Snapshot, push *Push, row *deliveryRow, user *recipient, to target, r *Rendered) *Message {
	m := &Message{
		DeliveryID: row.ID, NotificationID: n.Id, RequestID: row.RequestID,
		Channel: Channel(row.Channel), Kind: snapshot.Kind,
		Target: Target{UserID: user.ID, Address: to.address, Name: user.Name},
		Title:  r.Title, Body: r.Body, Image: r.Image, Link: r.Link, Data: r.Data,
	}
	switch m.Channel {
	case ChannelEmail:
		m.Email = &Email{Subject: r.EmailSubject, Text: r.EmailText, HTML: r.EmailHTML}
	case ChannelSMS:
		m.Body = r.textOfSMS()
	case ChannelPush:
		m.Target.Device = &Device{ID: to.device.ID, Platform: to.device.Platform, App: to.device.App,
			Environment: to.device.Environment}
		m.Push = push
	}
	return m
}

// localeOf is the language of a message: the person's, or when they have none
// that of the device.
func localeOf(user *recipient, to target) string {
	if user.Locale == "" && to.device != nil {
		return to.device.Locale
	}
	return user.Locale
}
