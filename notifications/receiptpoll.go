package notifications

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/jobs"
)

const (
	// pollAfter is how long a receipt may take to come by itself. Callbacks are
	// lost for good when nobody listens while they are tried.
	pollAfter = 10 * time.Minute

	// pollFor is how long the provider is asked: after a day it has given up too.
	pollFor = 24 * time.Hour

	// pollPage bounds one run of the job; what is left is next a minute later.
	pollPage = 300

	// clockSlack is how far the provider's clock, which counts in whole seconds,
	// may be from ours.
	clockSlack = time.Minute
)

// SMSPollArgs asks the providers what became of SMS whose receipt did not come.
type SMSPollArgs struct{}

// Kind implements [jobs.Args].
func (SMSPollArgs) Kind() string { return "sms.poll" }

// AddReceiptWorkers registers the job that asks for receipts.
func (s *Sender) AddReceiptWorkers(w *jobs.Workers) {
	jobs.AddWorker(w, smsPollWorker{s})
}

type smsPollWorker struct{ s *Sender }

// Timeout implements [jobs.Timeouter].
func (smsPollWorker) Timeout() time.Duration { return 5 * time.Minute }

// Work implements [jobs.Worker].
func (w smsPollWorker) Work(ctx context.Context, _ *jobs.Job[SMSPollArgs]) error {
	if err := w.s.forgetInbound(); err != nil {
		return err
	}
	return w.s.pollReceipts(ctx)
}

func (s *Sender) forgetInbound() error {
	now := s.now()
	for table, condition := range map[string]dbx.Expression{
		"groundwork_inbound": dbx.NewExp("[[at]] < {:at}", dbx.Params{"at": dbTime(now.Add(-inboundLife))}),
		"groundwork_polls":   dbx.NewExp("[[nextAt]] < {:at}", dbx.Params{"at": dbTime(now.Add(-pollFor))}),
	} {
		if _, err := s.app.NonconcurrentDB().Delete(table, condition).Execute(); err != nil {
			return fmt.Errorf("prune %s: %w", table, err)
		}
	}
	return nil
}

// pollReceipts asks for the deliveries that were accepted and have no last word,
// and for those of which it is not known whether they were sent.
func (s *Sender) pollReceipts(ctx context.Context) error {
	rows, err := s.findReceiptless()
	if err != nil || len(rows) == 0 {
		return err
	}
	configs, err := s.providers.SMSProviders(s.app)
	if err != nil {
		return err
	}
	asked := &pollers{s: s, configs: configs, open: map[string]ReceiptPoller{}, failed: map[string]bool{}}
	defer asked.close()
	done := map[string]bool{}
	for i := range rows {
		row := &rows[i]
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if done[row.ID] {
			continue
		}
		var again []string
		if DeliveryStatus(row.Status) == DeliveryAccepted {
			again, err = s.pollAccepted(ctx, asked, row)
		} else {
			again, err = s.pollUnknown(ctx, asked, row, done)
		}
		if err != nil {
			return err
		}
		for _, id := range again {
			if err := s.pollLater(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Sender) findReceiptless() ([]receiptRow, error) {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return nil, err
	}
	columns := make([]string, len(receiptColumns))
	for i, c := range receiptColumns {
		columns[i] = "d.[[" + c + "]]"
	}
	now := s.now()
	var rows []receiptRow
	err = s.app.ConcurrentDB().NewQuery("SELECT " + strings.Join(columns, ", ") + " FROM {{" + table + "}} d" +
		" LEFT JOIN {{groundwork_polls}} p ON p.[[delivery]] = d.[[id]]" +
		" WHERE d.[[channel]] = 'sms' AND d.[[status]] IN ('accepted', 'unknown') AND d.[[updated]] BETWEEN {:from} AND {:to}" +
		" AND (p.[[nextAt]] IS NULL OR p.[[nextAt]] <= {:now})" +
		" ORDER BY COALESCE(p.[[nextAt]], d.[[updated]]) LIMIT {:limit}").
		Bind(dbx.Params{"from": dbTime(now.Add(-pollFor)), "to": dbTime(now.Add(-pollAfter)), "now": dbTime(now), "limit": pollPage}).All(&rows)
	if err != nil {
		return nil, fmt.Errorf("find deliveries without a receipt: %w", err)
	}
	return rows, nil
}

// pollLater sees to it that a delivery is asked for again, each time after twice
// as long.
func (s *Sender) pollLater(id string) error {
	table := "{{groundwork_polls}}"
	var polls int
	err := s.app.ConcurrentDB().NewQuery("SELECT COALESCE(MAX([[polls]]), 0) FROM " + table + " WHERE [[delivery]] = {:id}").
		Bind(dbx.Params{"id": id}).Row(&polls)
	if err != nil {
		return fmt.Errorf("find poll of delivery %s: %w", id, err)
	}
	next := s.now().Add(min(pollAfter<<min(polls, 8), pollFor))
	_, err = s.app.NonconcurrentDB().NewQuery("INSERT INTO " + table + " ([[delivery]], [[polls]], [[nextAt]]) VALUES ({:id}, 1, {:next})" +
		" ON CONFLICT ([[delivery]]) DO UPDATE SET [[polls]] = [[polls]] + 1, [[nextAt]] = {:next}").
		Bind(dbx.Params{"id": id, "next": dbTime(next)}).Execute()
	if err != nil {
		return fmt.Errorf("store poll of delivery %s: %w", id, err)
	}
	return nil
}

// pollers are the adapters of one run, made when they are needed.
type pollers struct {
	s       *Sender
	configs []ProviderConfig
	open    map[string]ReceiptPoller
	closers []func()
	failed  map[string]bool
}

func (p *pollers) close() {
	for _, c := range p.closers {
		c()
	}
}

// of returns the providers that a delivery went by, or may have. ok is false when
// one of them cannot be asked now: then nothing can be concluded.
func (p *pollers) of(row *receiptRow) (ids []string, ok bool) {
	for i := range p.configs {
		cfg := p.configs[i]
		if !owns(p.configs[i:i+1], row) {
			continue
		}
		if p.failed[cfg.ID] {
			return nil, false
		}
		if p.open[cfg.ID] == nil {
			poller, closeIt, err := p.s.providers.receiptPoller(cfg)
			if err != nil {
				p.fail(cfg.ID, err)
				return nil, false
			}
			p.open[cfg.ID] = poller
			p.closers = append(p.closers, closeIt)
		}
		ids = append(ids, cfg.ID)
	}
	return ids, len(ids) > 0
}

// fail leaves a provider alone for the rest of the run.
func (p *pollers) fail(id string, err error) {
	p.failed[id] = true
	p.s.log.Warn("provider cannot be asked for receipts", "provider", id, "error", err)
}

// pollAccepted returns the delivery when it is to be asked for again later.
func (s *Sender) pollAccepted(ctx context.Context, asked *pollers, row *receiptRow) (again []string, err error) {
	if row.ProviderMessageID == "" {
		return []string{row.ID}, nil // nothing to ask by
	}
	ids, ok := asked.of(row)
	if !ok {
		return nil, nil
	}
	for _, id := range ids {
		r, found, err := asked.open[id].PollMessage(ctx, row.ProviderMessageID)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			asked.fail(id, err)
			return nil, nil
		}
		if !found {
			continue // deleted over there: it stays as it is
		}
		if changed, err := s.settleReceipt(row, r, id); changed || err != nil {
			return nil, err
		}
		break
	}
	return []string{row.ID}, nil
}

// pollUnknown looks for the messages of a person's deliveries of which it is not
// known whether they were sent, all together. The provider gives back nothing of
// ours but the number, so that only their count can tell:
//
//   - none over there: they were not sent. They become failed, with a reason that
//     says so, and are not sent again by themselves: the owner may, now that it is
//     sure that nobody gets them twice;
//   - as many as here: all of them were sent, one for one in their order;
//   - another number: they stay unknown.
func (s *Sender) pollUnknown(ctx context.Context, asked *pollers, row *receiptRow, done map[string]bool) (again []string, err error) {
	group, inFlight, err := s.findUnknown(row)
	if err != nil || inFlight {
		return nil, err
	}
	all := make([]string, len(group))
	for i := range group {
		all[i] = group[i].ID
		done[group[i].ID] = true
	}
	number, ok, err := s.numberOf(row)
	if err != nil {
		return nil, err
	}
	if !ok {
		return all, s.explainUnknown(group, "It is not known whether this message was sent, and the person's number has changed since, so it cannot be looked up.")
	}
	ids, ok := asked.of(row)
	if !ok {
		return nil, nil
	}
	from := s.now()
	for i := range group {
		if at := parseDBTime(group[i].Created); at.Before(from) {
			from = at
		}
	}
	found := map[string]string{} // provider by message
	var mine []Receipt
	others := 0
	for _, id := range ids {
		list, err := asked.open[id].PollAddress(ctx, number, from.Add(-clockSlack))
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			asked.fail(id, err)
			return nil, nil
		}
		for _, r := range list {
			if found[r.ProviderMessageID] != "" || !inWindow(group, r.CreatedAt) {
				continue
			}
			taken, err := s.isSpokenFor(r.ProviderMessageID)
			if err != nil {
				return nil, err
			}
			switch {
			case taken:
			case r.OtherSender:
				others++
			default:
				found[r.ProviderMessageID] = id
				mine = append(mine, r)
			}
		}
	}
	switch {
	case len(mine) == 0 && others == 0:
		return all, s.settleNotSent(group)
	case len(mine) == len(group):
		for i := range group {
			if _, err := s.settleReceipt(&group[i], mine[i], found[mine[i].ProviderMessageID]); err != nil {
				return nil, err
			}
		}
		return all, nil
	default:
		return all, s.explainUnknown(group,
			"It is not known whether this message was sent: the provider has messages to this person, and which is which cannot be told. Its own log shows their texts.")
	}
}

// findUnknown returns the unknown deliveries to the same person on the same way,
// the oldest first. inFlight says that another one is just being handed over,
// whose message would be mistaken for one of them.
func (s *Sender) findUnknown(row *receiptRow) (group []receiptRow, inFlight bool, err error) {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return nil, false, err
	}
	if row.User == "" {
		return []receiptRow{*row}, false, nil
	}
	var rows []receiptRow
	err = s.app.ConcurrentDB().Select(receiptColumns...).From(table).
		Where(dbx.HashExp{"user": row.User, "channel": string(ChannelSMS), "kind": row.Kind,
			"status": []any{string(DeliveryUnknown), string(DeliverySending)}}).
		AndWhere(dbx.NewExp("[[updated]] >= {:from}", dbx.Params{"from": dbTime(s.now().Add(-pollFor))})).
		OrderBy("created", "id").All(&rows)
	if err != nil {
		return nil, false, fmt.Errorf("find unknown deliveries: %w", err)
	}
	for _, r := range rows {
		if DeliveryStatus(r.Status) == DeliverySending {
			return nil, true, nil
		}
		if r.Provider == row.Provider || r.Provider == "" || row.Provider == "" {
			group = append(group, r)
		}
	}
	if len(group) == 0 {
		return nil, true, nil // a receipt came meanwhile
	}
	return group, false, nil
}

// inWindow says whether a message that was created then can be one of the group's.
func inWindow(group []receiptRow, at time.Time) bool {
	for i := range group {
		from, to := parseDBTime(group[i].Created).Add(-clockSlack), parseDBTime(group[i].Updated).Add(clockSlack)
		if !at.Before(from) && !at.After(to) {
			return true
		}
	}
	return false
}

// numberOf returns the number that a delivery went to: the person's, unless it has
// changed since.
func (s *Sender) numberOf(row *receiptRow) (number string, ok bool, err error) {
	users, err := UsersCollection(s.app)
	if err != nil {
		return "", false, err
	}
	user, err := s.app.FindRecordById(users, row.User)
	if err != nil {
		return "", false, nil // deleted
	}
	number = user.GetString("phone")
	return number, number != "" && (row.Address == "" || MaskAddress(ChannelSMS, number) == row.Address), nil
}

// isSpokenFor says whether a message belongs to a delivery, or did before that was
// tried again.
func (s *Sender) isSpokenFor(providerMessageID string) (bool, error) {
	table, err := tableName(s.app, CollectionDeliveries)
	if err != nil {
		return false, err
	}
	var n int
	err = s.app.ConcurrentDB().Select("COUNT(*)").From(table).Where(byMessageID(providerMessageID)).Row(&n)
	if err == nil && n == 0 {
		err = s.app.ConcurrentDB().Select("COUNT(*)").From("groundwork_inbound").Where(dbx.HashExp{"id": messageDigest(providerMessageID)}).Row(&n)
	}
	if err != nil {
		return false, fmt.Errorf("find delivery of a message: %w", err)
	}
	return n > 0, nil
}

// settleNotSent stores that messages never reached the provider.
func (s *Sender) settleNotSent(group []receiptRow) error {
	limit := s.now().Add(-pollAfter)
	return s.changeUnknown(group, "[[status]] = 'failed', [[reason]] = {:reason}, [[explanation]] = {:explanation}, [[updated]] = {:now}",
		dbx.Params{"reason": ReasonNotSent, "now": dbTime(s.now()),
			"explanation": "The provider does not have this message: it was not sent. It is not sent again by itself, and can safely be."},
		func(row *receiptRow) bool { return !parseDBTime(row.Updated).After(limit) })
}

// explainUnknown leaves updated alone: it says when the message was handed over.
func (s *Sender) explainUnknown(group []receiptRow, sentence string) error {
	return s.changeUnknown(group, "[[explanation]] = {:explanation}", dbx.Params{"explanation": sentence}, func(*receiptRow) bool { return true })
}

func (s *Sender) changeUnknown(group []receiptRow, set string, params dbx.Params, which func(*receiptRow) bool) error {
	err := s.app.RunInTransaction(func(txApp core.App) error {
		table, err := tableName(txApp, CollectionDeliveries)
		if err != nil {
			return err
		}
		update := txApp.DB().NewQuery("UPDATE {{" + table + "}} SET " + set + " WHERE [[id]] = {:id} AND [[channel]] = 'sms' AND [[status]] = 'unknown'").Prepare()
		defer update.Close()
		for i := range group {
			if !which(&group[i]) {
				continue
			}
			params["id"] = group[i].ID
			if _, err := update.Bind(params).Execute(); err != nil {
				return fmt.Errorf("store poll of delivery %s: %w", group[i].ID, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range group {
		s.counter.touch(group[i].Notification)
	}
	return nil
}
