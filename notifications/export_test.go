package notifications

import "context"

// CheckNow runs the check of a provider that is otherwise a job.
func (p *Providers) CheckNow(ctx context.Context, id string) error {
	row, err := p.row(p.app, id)
	if err != nil {
		return err
	}
	return p.check(ctx, row)
}
