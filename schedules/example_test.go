package schedules_test

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/schedules"
)

// A schedule with the action handler and the payload {"handler": "closeShops", "args":
// {"town": "Paris"}} runs this.
func ExampleHandle() {
	schedules.Handle("closeShops", func(_ context.Context, app core.App, payload json.RawMessage) (string, error) {
		var args struct{ Town string }
		if err := json.Unmarshal(payload, &args); err != nil {
			return "", err
		}
		shops, err := app.FindRecordsByFilter("shops", "town = {:town}", "", 0, 0, map[string]any{"town": args.Town})
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("Closed %d shops.", len(shops)), nil
	})
}

func ExampleParseCron() {
	c, err := schedules.ParseCron("0 9 * * sat")
	if err != nil {
		panic(err)
	}
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		panic(err)
	}
	fmt.Println(c.Words(paris))
	for _, at := range c.Upcoming(time.Date(2026, 10, 20, 0, 0, 0, 0, time.UTC), paris, 2) {
		fmt.Println(at.Format(time.RFC3339), "is", schedules.When(at, paris))
	}
	_, err = schedules.ParseCron("0 9 30 2 *")
	fmt.Println(err)
	// Output:
	// every Saturday at 09:00, Europe/Paris
	// 2026-10-24T07:00:00Z is Saturday 24 October 2026, 09:00
	// 2026-10-31T08:00:00Z is Saturday 31 October 2026, 09:00
	// This day never comes: on the 30th of February.
}
