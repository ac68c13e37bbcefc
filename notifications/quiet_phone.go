package notifications

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nyaruka/phonenumbers"
)

// sharedCode is the calling code of North America, which many countries with clocks
// far apart have in common.
const sharedCode = 1

// phoneCountry is what phone numbers of one country have in common: the calling code,
// for North America's the country and for the small ones the area. Empty when the number
// is none. A phone goes wherever its owner does, so that an area says too little in a
// large country.
func phoneCountry(phone string) string {
	n, err := phonenumbers.Parse(phone, "")
	if err != nil {
		return ""
	}
	code := int(n.GetCountryCode())
	if code != sharedCode {
		return strconv.Itoa(code)
	}
	region := phonenumbers.GetRegionCodeForNumber(n)
	if _, large := largeCountries()[region]; large {
		return region
	}
	if area := phonenumbers.Format(n, phonenumbers.E164); region != "" && len(area) > 5 {
		return area[1:5]
	}
	return strconv.Itoa(code)
}

// largeCountries are the zones of those countries of [sharedCode] that have several.
var largeCountries = sync.OnceValue(func() map[string][]string {
	zones := map[string][]string{"US": nil, "CA": nil}
	for area := 200; area < 1000; area++ {
		n, err := phonenumbers.Parse(fmt.Sprintf("+%d%d2345678", sharedCode, area), "")
		if err != nil || phonenumbers.GetNumberType(n) != phonenumbers.FIXED_LINE_OR_MOBILE {
			continue // a free number has the zones of all countries
		}
		region := phonenumbers.GetRegionCodeForNumber(n)
		names, err := phonenumbers.GetTimezonesForNumber(n)
		if _, large := zones[region]; !large || err != nil {
			continue
		}
		for _, name := range names {
			if !slices.Contains(zones[region], name) {
				zones[region] = append(zones[region], name)
			}
		}
	}
	return zones
})

// lawfulZones are the zones whose hours a promotional message has to keep, all of
// them: a person's own, or else all of the country of their phone. own is what counts
// when the country says nothing.
func lawfulZones(own *time.Location, country string) []*time.Location {
	names := largeCountries()[country]
	if names == nil && country != "" {
		names, _ = phonenumbers.GetTimezonesForPrefix(country) // an unknown prefix has no zones
	}
	var zones []*time.Location
	for _, name := range names {
		// "Etc/Unknown" is none that can be loaded.
		if zone := loadZone(name); zone != nil {
			zones = append(zones, zone)
		}
	}
	if len(zones) == 0 {
		return []*time.Location{own}
	}
	return zones
}
