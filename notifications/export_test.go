package notifications

import (
	"context"
	"time"
)

// SecretPurpose is what the secret of a provider is sealed for.
var SecretPurpose = secretPurpose

// CheckNow runs the check of a provider that is otherwise a job.
func (p *Providers) CheckNow(ctx context.Context, id string) error {
	row, err := p.row(p.app, id)
	if err != nil {
		return err
	}
	return p.check(ctx, row)
}

// ByMessageID is the condition by which receipts are looked up.
var ByMessageID = byMessageID

// Opens is the first moment from t on at which hours of the day in all zones have
// begun; from after to goes on over midnight.
func Opens(t time.Time, hours HoursOfDay, zones ...*time.Location) time.Time {
	h := &hold{}
	for _, zone := range zones {
		h.all = append(h.all, openHours{zone, hours.From, hours.To})
	}
	return h.until(t)
}

// ZonesOfPhone are the zones whose hours a text to a number has to keep when nothing
// else is known; own is the default zone.
func ZonesOfPhone(phone string, own *time.Location) []*time.Location {
	return lawfulZones(own, phoneCountry(phone))
}

// TakeAnswer stores the answer of a worker that nobody waits for.
func (s *Sender) TakeAnswer(ch ProviderChannel, delivery string, try int, o Outcome, notBegun bool) error {
	_, err := s.settleElsewhere(ch, []answer{{Delivery: delivery, Try: try, Outcome: o, NotBegun: notBegun}})
	return err
}

// SendMailNow makes one try at an account mail, which is otherwise a job.
func (s *Sender) SendMailNow(ctx context.Context, id string) error { return s.sendMail(ctx, id) }
