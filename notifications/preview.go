package notifications

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

const (
	// previewPeople is for how many people an SMS is rendered to count its segments;
	// beyond them it is an estimate.
	previewPeople = 1000
	// previewTime is how long that may take.
	previewTime = 5 * time.Second
)

// Preview is what would happen if a notification was sent now.
type Preview struct {
	// People is how many the audience holds.
	People int64 `json:"people"`

	// Captured is true where messages are kept instead of sent.
	Captured bool `json:"captured"`

	// Seconds is how long the slowest channel takes; nil when no sender of any has a
	// rate: as long as the other sides take.
	Seconds *float64 `json:"seconds"`

	Channels []ChannelPreview `json:"channels"`

	// Sample is nil when there is nobody to try it with.
	Sample *SamplePreview `json:"sample"`
}

// ChannelPreview is what a [Preview] says about one channel.
type ChannelPreview struct {
	Channel        Channel         `json:"channel"`
	Targets        int64           `json:"targets"` // messages: for push one for each device
	People         int64           `json:"people"`  // who have at least one target
	WithoutAddress int64           `json:"withoutAddress"`
	Seconds        *float64        `json:"seconds"` // nil when no sender has a rate
	Senders        []SenderPreview `json:"senders,omitempty"`
	SMS            *SMSPreview     `json:"sms,omitempty"`
}

// SenderPreview is what goes by one provider.
type SenderPreview struct {
	Provider      string          `json:"provider"` // the row's id; empty when there is none
	Name          string          `json:"name"`
	Channel       ProviderChannel `json:"channel"`
	Targets       int64           `json:"targets"`
	RatePerSecond float64         `json:"ratePerSecond"`     // 0: as fast as the other side takes them
	Problem       string          `json:"problem,omitempty"` // why nothing would leave, in one sentence
}

// SMSPreview is what texts consist of and cost. Price and cost are nil as long as
// nobody entered a price.
type SMSPreview struct {
	Segments        int64    `json:"segments"`
	Estimated       bool     `json:"estimated"` // not every text was made
	PricePerSegment *float64 `json:"pricePerSegment"`
	Currency        string   `json:"currency"`
	Cost            *float64 `json:"cost"`
}

// SamplePreview is the message as one person would get it.
type SamplePreview struct {
	User     string                     `json:"user"`
	Locale   string                     `json:"locale"`
	Skipped  string                     `json:"skipped,omitempty"` // why this person would get nothing, in one sentence
	Messages map[Channel]map[string]any `json:"messages"`
}

// PreviewOptions are what a preview can be asked besides. The zero value is a
// preview with the first person and the prices of the providers.
type PreviewOptions struct {
	Sample          string   // id of a person
	PricePerSegment *float64 // instead of the provider's
	Currency        string
}

// Preview counts and renders a notification without sending or storing anything.
// The error is [FieldErrors] when it could not be sent like this.
func (s *Sender) Preview(n *Notification, o PreviewOptions) (*Preview, error) {
	app := s.app
	n.SetStatus(StatusDraft)
	if err := n.Check(app, s.now()); err != nil {
		return nil, err
	}
	errs := FieldErrors{}
	if o.Sample != "" {
		users, err := UsersCollection(app)
		if err != nil {
			return nil, err
		}
		if _, err := app.FindRecordById(users, o.Sample); err != nil {
			errs.add("sample", "not_found", "There is no person with this id: choose another one, or leave it empty.")
		}
	}
	if sentence := checkPrice(o.PricePerSegment, o.Currency); sentence != "" {
		errs.add("pricePerSegment", "price", sentence)
	}
	if len(errs) > 0 {
		return nil, errs
	}
	if err := n.prepareSend(app, s.now(), false); err != nil {
		return nil, err
	}
	snapshot, err := n.Snapshot()
	if err != nil {
		return nil, err
	}
	compiled, err := Compile(snapshot.Content)
	if err != nil {
		return nil, err
	}
	p := &Preview{Captured: s.opts.CaptureAll}
	audience := n.Audience()
	if p.People, err = audience.Count(app); err != nil {
		return nil, err
	}
	for _, channel := range n.Channels() {
		c, err := s.previewChannel(audience, channel, snapshot)
		if err != nil {
			return nil, err
		}
		c.WithoutAddress = p.People - c.People
		if channel == ChannelSMS {
			if c.SMS, err = s.previewSMS(n, snapshot, compiled, audience, c, o); err != nil {
				return nil, err
			}
		}
		p.Seconds = longer(p.Seconds, c.Seconds)
		p.Channels = append(p.Channels, c)
	}
	p.Sample, err = s.previewSample(n, snapshot, compiled, audience, o.Sample)
	return p, err
}

func longer(a, b *float64) *float64 {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}

// previewChannel counts the targets of an audience and finds out who would send.
func (s *Sender) previewChannel(audience Audience, channel Channel, snapshot Snapshot) (ChannelPreview, error) {
	c := ChannelPreview{Channel: channel}
	routes := map[Route]int64{}
	switch channel {
	case ChannelInbox:
		people, err := audience.Count(s.app)
		c.Targets, c.People = people, people
		return c, err
	case ChannelEmail, ChannelSMS:
		people, err := audience.countWith(s.app, addressColumn(channel))
		if err != nil {
			return c, err
		}
		c.Targets, c.People = people, people
		routes[Route{Channel: providerChannel(channel, snapshot.Kind)}] = people
	case ChannelPush:
		var err error
		if routes, c.People, err = audience.countDevices(s.app); err != nil {
			return c, err
		}
		for _, targets := range routes {
			c.Targets += targets
		}
	}
	rows, err := s.providers.rows(s.app)
	if err != nil {
		return c, err
	}
	byProvider := map[string]*SenderPreview{}
	for route, targets := range routes {
		row := choose(rows, route)
		sender := SenderPreview{Channel: route.Channel, Targets: targets}
		if row == nil {
			sender.Problem = noProviderResult(&Message{Channel: channel, Kind: snapshot.Kind}, route).Explanation
		} else {
			sender.Provider, sender.Name, sender.Channel, sender.RatePerSecond = row.id, row.name, row.channel, row.rate
			if row.state == ProviderPaused {
				sender.Problem = orSentence(row.reason)
			}
		}
		key := sender.Provider + " " + string(sender.Channel) + " " + sender.Problem
		if same := byProvider[key]; same != nil {
			same.Targets += targets
			continue
		}
		byProvider[key] = &sender
	}
	for _, sender := range byProvider {
		if sender.RatePerSecond > 0 {
			seconds := math.Round(10*float64(sender.Targets)/sender.RatePerSecond) / 10
			c.Seconds = longer(c.Seconds, &seconds)
		}
		c.Senders = append(c.Senders, *sender)
	}
	slices.SortFunc(c.Senders, func(a, b SenderPreview) int {
		if a.Targets != b.Targets {
			return int(b.Targets - a.Targets)
		}
		return strings.Compare(string(a.Channel)+a.Provider, string(b.Channel)+b.Provider)
	})
	return c, nil
}

// addressColumn is the field of a person that holds their address on a channel.
func addressColumn(channel Channel) string {
	if channel == ChannelSMS {
		return "phone"
	}
	return core.FieldNameEmail
}

// countWith counts the people of an audience whose field is not empty.
func (a Audience) countWith(app core.App, field string) (n int64, err error) {
	query, table, err := a.query(app)
	if err != nil {
		return 0, err
	}
	query.AndWhere(dbx.NewExp("[[" + table + "." + field + "]] <> ''"))
	count := "COUNT(DISTINCT [[" + table + ".id]])"
	if err := query.Select(count).Distinct(false).Row(&n); err != nil {
		return 0, a.readable(err)
	}
	return n, nil
}

// countDevices counts the active devices of an audience by the way to them, and
// the people who have any.
func (a Audience) countDevices(app core.App) (routes map[Route]int64, people int64, err error) {
	query, table, err := a.query(app)
	if err != nil {
		return nil, 0, err
	}
	devices, err := tableName(app, CollectionDevices)
	if err != nil {
		return nil, 0, err
	}
	who := query.Select("[[" + table + ".id]]").Distinct(false).Build()
	from := " FROM {{" + devices + "}} d WHERE d.[[status]] = 'active' AND d.[[user]] IN (" + who.SQL() + ")"
	var rows []struct {
		deviceRow
		N int64 `db:"n"`
	}
	if err := app.ConcurrentDB().NewQuery("SELECT d.[[pushService]], d.[[app]], d.[[environment]], COUNT(*) AS [[n]]" + from +
		" GROUP BY d.[[pushService]], d.[[app]], d.[[environment]]").Bind(who.Params()).All(&rows); err != nil {
		return nil, 0, a.readable(err)
	}
	if err := app.ConcurrentDB().NewQuery("SELECT COUNT(DISTINCT d.[[user]])" + from).Bind(who.Params()).Row(&people); err != nil {
		return nil, 0, a.readable(err)
	}
	routes = map[Route]int64{}
	for _, row := range rows {
		routes[row.route()] += row.N
	}
	return routes, people, nil
}

// previewSMS counts segments: of every text when there are few or all are the same,
// else of the first ones, for all.
func (s *Sender) previewSMS(n *Notification, snapshot Snapshot, compiled *Compiled, audience Audience, c ChannelPreview, o PreviewOptions) (*SMSPreview, error) {
	sms := &SMSPreview{PricePerSegment: o.PricePerSegment, Currency: o.Currency}
	made, segments, err := s.countSegments(n, snapshot, compiled, audience)
	if err != nil {
		return nil, err
	}
	if made > 0 {
		sms.Segments = int64(math.Round(float64(segments) * float64(c.Targets) / float64(made)))
		sms.Estimated = made < c.Targets
	}
	if sms.PricePerSegment == nil && len(c.Senders) == 1 && c.Senders[0].Provider != "" {
		row, err := s.providers.row(s.app, c.Senders[0].Provider)
		if err != nil {
			return nil, err
		}
		if row != nil {
			sms.PricePerSegment, sms.Currency = row.price()
		}
	}
	if sms.PricePerSegment != nil {
		cost := math.Round(float64(sms.Segments)**sms.PricePerSegment*1e6) / 1e6
		sms.Cost = &cost
	}
	return sms, nil
}

// countSegments makes the texts of the first people who have a number. made counts
// those that would get nothing too.
func (s *Sender) countSegments(n *Notification, snapshot Snapshot, compiled *Compiled, audience Audience) (made, segments int64, err error) {
	began, after := time.Now(), ""
	for made < previewPeople && time.Since(began) < previewTime {
		ids, err := audience.page(s.app, after, dataPage, "phone")
		if err != nil || len(ids) == 0 {
			return made, segments, err
		}
		after = ids[len(ids)-1]
		people, err := findRecipients(s.app, ids, compiled)
		if err != nil {
			return 0, 0, err
		}
		data, err := newDataPages(s.app, snapshot, ids)
		if err != nil {
			return 0, 0, err
		}
		for _, id := range ids {
			person := people[id]
			if person == nil || time.Since(began) > previewTime {
				continue
			}
			made++
			vars := baseVars(n, snapshot)
			vars["user"] = person.Vars
			if data != nil {
				rows, err := data.of(id)
				if err != nil {
					return 0, 0, err
				}
				if len(rows) == 0 {
					continue
				}
				vars["rows"] = rows
			}
			rendered, err := compiled.In(person.Locale).Render(vars, ChannelSMS)
			if err != nil {
				continue // that delivery would fail
			}
			of, _ := Segments(s.SMSText(snapshot.Kind, rendered.textOfSMS()))
			segments += int64(of)
		}
	}
	return made, segments, nil
}

// price is what an SMS provider takes for a segment, as its owner entered it.
func (row *providerRow) price() (perSegment *float64, currency string) {
	var config struct {
		PricePerSegment *float64 `json:"pricePerSegment"`
		Currency        string   `json:"currency"`
	}
	_ = json.Unmarshal([]byte(row.config), &config) // what cannot be read was refused
	return config.PricePerSegment, config.Currency
}

var currencyPattern = regexp.MustCompile(`^[A-Z]{3}$`)

// checkPrice returns what is wrong with a price; empty when nothing is.
func checkPrice(perSegment *float64, currency string) string {
	switch {
	case perSegment == nil && currency == "":
		return ""
	case perSegment == nil || currency == "":
		return `"pricePerSegment" and "currency" belong together, such as 0.0075 and "EUR".`
	case *perSegment < 0 || math.IsNaN(*perSegment) || math.IsInf(*perSegment, 0):
		return `"pricePerSegment" must be a number from 0 up, such as 0.0075.`
	case !currencyPattern.MatchString(currency):
		return `"currency" is three capital letters, such as EUR.`
	}
	return ""
}

// previewSample renders for one person on each channel.
func (s *Sender) previewSample(n *Notification, snapshot Snapshot, compiled *Compiled, audience Audience, named string) (*SamplePreview, error) {
	person, err := findSample(s.app, audience, snapshot, named)
	if err != nil || person == nil {
		return nil, err
	}
	user := recipientOf(person.user)
	p := &SamplePreview{User: user.ID, Locale: user.Locale, Messages: map[Channel]map[string]any{}}
	if snapshot.DataFrom != "" && len(person.rows) == 0 {
		p.Skipped = fmt.Sprintf(nothingToSay, snapshot.DataName)
		return p, nil
	}
	devices, err := findDevices(s.app, "user", []string{user.ID})
	if err != nil {
		return nil, err
	}
	for _, channel := range n.Channels() {
		to := target{}
		if channel == ChannelPush {
			to.device = &deviceRow{}
			if len(devices) > 0 {
				to.device = &devices[0]
			}
		}
		rendered, err := compiled.In(localeOf(user, to)).Render(person.vars(n, snapshot), channel)
		if err != nil {
			errs := FieldErrors{}
			if n.Template() != "" {
				return nil, errs.addedOr("template", err)
			}
			return nil, errs.addedOr("body", err)
		}
		m := newMessage(n, snapshot, nil, &deliveryRow{Channel: string(channel)}, user, to, rendered)
		view := renderedView(m)
		if channel == ChannelSMS {
			m.Body = s.SMSText(m.Kind, m.Body)
			segments, encoding := Segments(m.Body)
			view = map[string]any{"body": m.Body, "segments": segments, "encoding": encoding}
		}
		p.Messages[channel] = view
	}
	return p, nil
}

// addedOr returns err as the refusal of a field, or as it is.
func (e FieldErrors) addedOr(field string, err error) error {
	if other := e.addError(field, err); other != nil {
		return other
	}
	return e
}
