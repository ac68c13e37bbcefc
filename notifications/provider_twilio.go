package notifications

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
)

// SMSProviders returns the settings of all SMS providers with their secrets opened,
// those that are switched off too: receipts and answers to what they sent still
// come. One whose secret cannot be opened is left out. The one that serves its
// channel comes after the others of that channel.
func (p *Providers) SMSProviders(app core.App) ([]ProviderConfig, error) {
	rows, err := p.rows(app)
	if err != nil {
		return nil, err
	}
	var configs []ProviderConfig
	for _, ch := range []ProviderChannel{ProviderSMSTransactional, ProviderSMSPromotional} {
		serves := choose(rows, Route{Channel: ch})
		var last *ProviderConfig
		for _, row := range rows {
			if row.channel != ch {
				continue
			}
			cfg, err := p.config(app, row)
			if err != nil || cfg.Secret == "" {
				continue // its state says what is wrong with it
			}
			if row == serves {
				last = &cfg
				continue
			}
			configs = append(configs, cfg)
		}
		if last != nil {
			configs = append(configs, *last)
		}
	}
	return configs, nil
}

// SameSender says whether two ways to write the sender of an SMS mean the same
// one.
func SameSender(a, b string) bool {
	return normalSender(a) != "" && normalSender(a) == normalSender(b)
}

// receiptPoller makes an adapter of its own for a provider, to ask for receipts:
// the live one belongs to the messages. close must be called.
func (p *Providers) receiptPoller(cfg ProviderConfig) (poller ReceiptPoller, closeIt func(), err error) {
	adapter, err := p.make(cfg)
	if err != nil {
		return nil, nil, err
	}
	poller, ok := adapter.(ReceiptPoller)
	if !ok {
		return nil, nil, fmt.Errorf("provider %s cannot be asked for receipts", cfg.ID)
	}
	return poller, func() {
		if c, ok := adapter.(Closer); ok {
			_ = c.Close() // nothing is in flight any more
		}
	}, nil
}
