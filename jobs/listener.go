package jobs

import (
	"context"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riversqlite"
)

// wakingDriver is the SQLite driver whose listener need not wait for its next
// look at the database (every 50 ms): the relay, in this process, says when there
// is something. A code that somebody waits for starts at once.
type wakingDriver struct {
	*riversqlite.Driver
	wake chan struct{}
}

// GetListener implements [riverdriver.Driver].
func (d *wakingDriver) GetListener(params *riverdriver.GetListenenerParams) riverdriver.Listener {
	return &wakingListener{d.Driver.GetListener(params), d.wake}
}

type wakingListener struct {
	riverdriver.Listener
	wake <-chan struct{}
}

// WaitForNotification implements [riverdriver.Listener].
func (l *wakingListener) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	for {
		// The other listener looks when it is called, then from time to time: calling
		// it again makes it look now.
		look, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			select {
			case <-l.wake:
				stop()
			case <-done:
			}
		}()
		n, err := l.Listener.WaitForNotification(look)
		close(done)
		woken := look.Err() != nil && ctx.Err() == nil
		stop()
		if err != nil && woken {
			continue
		}
		return n, err
	}
}
