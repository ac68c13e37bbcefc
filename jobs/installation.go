package jobs

import (
	"fmt"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
)

// installation names a data folder among those that share a Postgres. It is made
// once, and goes with the data: whoever restores a copy elsewhere beside the first
// one shares its jobs.
func installation(app core.App) (string, error) {
	made := security.RandomStringWithAlphabet(core.DefaultIdLength, core.DefaultIdAlphabet)
	db := app.NonconcurrentDB() // the writer: another process may make it at the same time
	_, err := db.NewQuery("INSERT INTO {{groundwork_installation}} ([[id]]) SELECT {:id} WHERE NOT EXISTS (SELECT 1 FROM {{groundwork_installation}})").Bind(dbx.Params{"id": made}).Execute()
	if err != nil {
		return "", fmt.Errorf("name this installation: %w", err)
	}
	var id string
	if err := db.Select("id").From("groundwork_installation").Row(&id); err != nil {
		return "", fmt.Errorf("read the name of this installation: %w", err)
	}
	return id, nil
}
