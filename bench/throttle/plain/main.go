// Command plain is PocketBase as it comes, of the version that this module uses:
// what bench/throttle compares with.
package main

import (
	"log"

	"github.com/pocketbase/pocketbase"
)

func main() {
	if err := pocketbase.New().Start(); err != nil {
		log.Fatal(err)
	}
}
