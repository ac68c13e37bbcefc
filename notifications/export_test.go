package notifications

import "context"

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

// AtClock is the instant at which a clock in a zone shows a date and time.
var AtClock = atClock
