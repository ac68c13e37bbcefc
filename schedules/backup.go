package schedules

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/filesystem/blob"
)

var backupName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,49}$`)

// backupAction makes one of PocketBase's backups, where the settings put them.
type backupAction struct{}

func (backupAction) keys() []Key {
	return []Key{
		{"name", `what the files are called, before the date; "scheduled" when it is left out`},
		{"keep", "how many of them are kept, the newest ones; 7 when it is left out"},
	}
}

func (backupAction) read(raw string) (name string, keep int, err error) {
	p := readPayload(raw, backupAction{}.keys())
	if name = p.text("name"); name == "" {
		name = "scheduled"
	}
	keep = int(p.number("keep", 1, 1000, 7))
	if !backupName.MatchString(name) {
		p.fail("%q cannot be the name of a file here: use small letters, digits, - and _, at most 50 of them.", name)
	}
	return name, keep, p.err
}

func (a backupAction) check(_ core.App, s *Schedule, _ checking) error {
	_, _, err := a.read(s.GetString("payload"))
	return err
}

// stamp is the end of a backup's name. It is as long for all, so that they sort by it.
const stamp = "20060102150405"

func (a backupAction) run(ctx context.Context, c *call) (string, error) {
	name, keep, err := a.read(c.schedule.GetString("payload"))
	if err != nil {
		return "", err
	}
	if c.app.Store().Has(core.StoreKeyActiveBackup) {
		return "", retryLater("Another backup or a restore was under way.")
	}
	file := name + "_" + c.due.UTC().Format(stamp) + ".zip"
	fsys, err := c.app.NewBackupsFilesystem()
	if err != nil {
		return "", fmt.Errorf("The place for backups cannot be reached: %w", err) //nolint:staticcheck // a sentence for people
	}
	defer func() { _ = fsys.Close() }() // nothing of it is still to be written
	// An attempt that was cut off may have got that far.
	if there, err := fsys.Exists(file); err != nil || !there {
		if err := c.app.CreateBackup(ctx, file); err != nil {
			return "", fmt.Errorf("The backup could not be made: %w", err) //nolint:staticcheck // a sentence for people
		}
	}
	pattern := regexp.MustCompile("^" + regexp.QuoteMeta(name) + `_[0-9]{14}\.zip$`)
	files, err := fsys.List(name + "_")
	if err != nil {
		return "", fmt.Errorf("The backup %s was made. The older ones cannot be listed: %w", file, err) //nolint:staticcheck // a sentence for people
	}
	// The one of this run stays, whatever its name says: a clock that was ahead leaves
	// older ones with later times.
	files = slices.DeleteFunc(files, func(f *blob.ListObject) bool { return f.Key == file || !pattern.MatchString(f.Key) })
	slices.SortFunc(files, func(a, b *blob.ListObject) int { return cmp.Compare(b.Key, a.Key) })
	removed := 0
	for _, f := range files[min(keep-1, len(files)):] {
		if err := fsys.Delete(f.Key); err != nil {
			return "", fmt.Errorf("The backup %s was made. The old one %s cannot be removed: %w", file, f.Key, err) //nolint:staticcheck // a sentence for people
		}
		removed++
	}
	text := fmt.Sprintf("Made %s.", file)
	if removed > 0 {
		text += fmt.Sprintf(" Removed %s.", countOf(removed, "older backup"))
	}
	return text, nil
}
