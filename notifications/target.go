package notifications

import "maps"

// target is where one delivery goes now.
type target struct {
	address string
	device  *deviceRow // for push only
	route   Route
}

// targets returns the current target of each row: the one a person has now, not
// the one they had when the notification was planned.
func (s *Sender) targets(channel Channel, rows []*deliveryRow, people map[string]*recipient) (map[string]target, error) {
	out := make(map[string]target, len(rows))
	switch channel {
	case ChannelEmail, ChannelSMS:
		for _, row := range rows {
			p := people[row.User]
			if p == nil {
				continue
			}
			to := target{address: p.Email, route: Route{Channel: providerChannel(channel, Kind(row.Kind))}}
			if channel == ChannelSMS {
				to.address = p.Phone
			}
			out[row.ID] = to
		}
	case ChannelPush:
		if err := s.fillDevices(rows); err != nil {
			return nil, err
		}
		for _, row := range rows {
			// A device that moved to somebody else must not get this message.
			if d := row.device; d != nil && d.User == row.User {
				out[row.ID] = target{d.Token, d, d.route()}
			}
		}
	}
	return out, nil
}

// fillDevices reads the devices of the rows that were not made a moment ago.
func (s *Sender) fillDevices(rows []*deliveryRow) error {
	var ids []string
	for _, row := range rows {
		if row.device == nil {
			ids = append(ids, row.Device)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	devices, err := findDevices(s.app, "id", ids)
	if err != nil {
		return err
	}
	byID := make(map[string]*deviceRow, len(devices))
	for i := range devices {
		byID[devices[i].ID] = &devices[i]
	}
	for _, row := range rows {
		if row.device == nil {
			row.device = byID[row.Device]
		}
	}
	return nil
}

// peopleOf returns the people of rows, by id. Those that were read together with
// the rows are not read again.
func (s *Sender) peopleOf(rows []*deliveryRow, texts *Compiled) (map[string]*recipient, error) {
	people := make(map[string]*recipient, len(rows))
	missing := make([]string, 0, len(rows))
	for _, row := range rows {
		if _, seen := people[row.User]; seen {
			continue
		}
		people[row.User] = row.person
		if row.person == nil {
			missing = append(missing, row.User)
		}
	}
	if len(missing) == 0 {
		return people, nil
	}
	found, err := findRecipients(s.app, missing, texts)
	if err != nil {
		return nil, err
	}
	maps.Copy(people, found)
	return people, nil
}
