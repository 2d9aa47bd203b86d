package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/atproto/crawl"
	"github.com/tidings-dev/tidings/atproto/identity"
	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/pds"
	"github.com/tidings-dev/tidings/internal/glob"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/rediscounts"
	"github.com/tidings-dev/tidings/notifier/statsrecords"
)

// check checks the options alone; FromRegistry checks them against the registry's
// configuration. If Tidings is disabled, missing options are not reported.
func (o *Options) check(m *mistakes) {
	if o.Data == "" && o.Enabled {
		m.add("options.data", "required; use a folder on a local disk, such as /var/lib/tidings")
	}
	each(m, "options.public", o.Public, glob.ValidateRepository)
	if o.Hold != nil {
		o.Hold.check(m)
	}
	if o.Account != nil {
		o.Account.check(m)
	}
	if o.Remote != nil {
		o.Remote.check(m)
	}
	if o.Owner != "" {
		m.check("options.owner", identity.ValidateDID(o.Owner))
	}
	o.checkOwners(m)
	if o.Quota != nil {
		o.Quota.check(m)
		if o.Hold == nil && o.Account == nil && o.Enabled && !m.at["options.hold"] && !m.at["options.account"] && !m.at["options.remote"] {
			m.add("options.quota", "there are no records to count without an account; set hold or account as well, or remove quota")
		}
	}
	if o.Announce != nil {
		o.Announce.check(m)
		if o.Announce.MentionOwner && o.Owner == "" && len(o.Owners) == 0 {
			m.add("options.announce.mention_owner", "there is no owner to mention; set owner to the DID of another account, or owners")
		}
		if o.Hold == nil && o.Account == nil && o.Remote == nil && o.Enabled && !m.at["options.hold"] && !m.at["options.account"] && !m.at["options.remote"] {
			m.add("options.announce", "there is no account to post with; set hold or account as well, or remove announce")
		}
	}
	if o.Redis != nil {
		o.Redis.check(m)
	}
	if err := statsrecords.ValidateInterval(time.Duration(o.Stats.Records)); err != nil && o.Stats.Records != 0 {
		m.add("options.stats.records", err.Error()+", or off")
	}
	o.checkReserve(m)
	o.Count.check(m)
	o.Journal.check(m)
	o.HTTP.check(m)
}

// Limits of the lists of a hold.
const (
	maxRelays  = 32
	maxCallers = 1000

	maxAudiences = 32
)

func (h *Hold) check(m *mistakes) {
	m.check("options.hold.hostname", identity.CheckHostname(h.Hostname))
	each(m, "options.hold.relays", h.Relays, crawl.CheckRelay)
	if h.local() && len(h.Relays) > 0 {
		m.add("options.hold.relays", "no relay can reach "+h.Hostname+"; remove relays, or use a domain as the hostname")
	}
	if len(h.Relays) > maxRelays {
		m.add("options.hold.relays", fmt.Sprintf("has %d relays; at most %d are allowed", len(h.Relays), maxRelays))
	}
	checkCallers(m, "options.hold.registries", h.Registries)
	checkCallers(m, "options.hold.owners", h.Owners)
	m.check("options.hold.pulls", auth.Pulls(h.Pulls).Check())
	if len(h.Audiences) > maxAudiences {
		m.add("options.hold.audiences", fmt.Sprintf("has %d audiences; at most %d are allowed", len(h.Audiences), maxAudiences))
	}
	each(m, "options.hold.audiences", h.Audiences, identity.CheckAudience)
	checkDirectory(m, "options.hold.plc", h.PLC)
	m.check("options.hold.display_name", checkProfile(lexicon.Profile{DisplayName: h.DisplayName}))
	m.check("options.hold.description", checkProfile(lexicon.Profile{Description: h.Description}))
	if h.MovedTo != nil {
		m.check("options.hold.moved_to.service", identity.CheckService(h.MovedTo.Service, h.Hostname))
		if h.MovedTo.Key != "" {
			m.check("options.hold.moved_to.key", identity.CheckPublicKey(h.MovedTo.Key))
		}
	}
}

// checkDirectory checks the URL of a directory of did:plc; "" is the public one.
func checkDirectory(m *mistakes, path, url string) {
	if url != "" {
		m.check(path, pds.CheckService(url))
	}
}

func checkCallers(m *mistakes, path string, dids []string) {
	if len(dids) > maxCallers {
		m.add(path, fmt.Sprintf("has %d accounts; at most %d are allowed", len(dids), maxCallers))
	}
	each(m, path, dids, identity.CheckAccount)
}

func (r *Redis) check(m *mistakes) {
	m.check("options.redis.name", rediscounts.ValidateName(r.Name))
	if r.Inherit {
		if own := (Redis{Name: r.Name, Inherit: true}); !reflect.DeepEqual(*r, own) {
			m.add("options.redis.inherit", "uses the registry's whole redis section; only name can be set as well")
		}
		return
	}
	if len(r.Addrs) == 0 {
		m.add("options.redis.addrs", `required; use ["redis:6379"], or the registry's own section with redis: inherit`)
	}
	each(m, "options.redis.addrs", r.Addrs, func(addr string) error {
		if strings.Contains(addr, "://") || strings.Contains(addr, "@") {
			return errors.New(`is a URL; use host:port, like "redis:6379", and the options username, password_file, db and tls`)
		}
		if err := checkAddr(addr); err != nil || strings.HasPrefix(addr, ":") {
			return fmt.Errorf(`%q is an invalid address; use host:port, like "redis:6379"`, addr)
		}
		return nil
	})
	if r.DB < 0 {
		m.add("options.redis.db", fmt.Sprintf("%d is an invalid database number", r.DB))
	}
	if r.DB > 0 && len(r.Addrs) > 1 && r.MasterName == "" {
		m.add("options.redis.db", "several addrs without master_name are a cluster, which has only database 0")
	}
	if r.TLS != nil && (r.TLS.CertFile == "") != (r.TLS.KeyFile == "") {
		m.add("options.redis.tls", "has one of cert_file and key_file; set both or neither")
	}
}

func (c *Count) check(m *mistakes) {
	checkPatterns(m, "options.count.ignore_user_agents", c.IgnoreUserAgents)
	checkPatterns(m, "options.count.ignore_actors", c.IgnoreActors)
	m.check("options.count.head_window", classify.ValidateHeadWindow(c.HeadWindow))
}

func (j *Journal) check(m *mistakes) {
	if j.Segment < journal.MinSegmentSize || j.Segment > journal.MaxSegmentSize {
		m.add("options.journal.segment", fmt.Sprintf("%s is out of range; it must be from %s to %s", j.Segment, Size(journal.MinSegmentSize), Size(journal.MaxSegmentSize)))
	}
	if j.Limit < 2*j.Segment {
		m.add("options.journal.limit", fmt.Sprintf("%s is less than two segments of %s; the journal deletes whole segments", j.Limit, j.Segment))
	}
	if j.Wait < journal.MinWait || j.Wait > journal.MaxWait {
		m.add("options.journal.wait", fmt.Sprintf("%s is out of range; it must be from %s to %s, since a client waits for it", j.Wait, journal.MinWait, journal.MaxWait))
	}
}

func checkPatterns(m *mistakes, path string, list []string) {
	if len(list) > classify.MaxPatterns {
		m.add(path, fmt.Sprintf("has %d patterns; at most %d are allowed, since each request is compared with all of them", len(list), classify.MaxPatterns))
	}
	each(m, path, list, classify.ValidatePattern)
}

// checkProfile validates fields of the profile by its schema.
func checkProfile(p lexicon.Profile) error {
	record, err := lexicon.Encode(p)
	if err == nil {
		_, err = lexicon.Validate(lexicon.NSIDProfile, record)
	}
	return err
}

func (m *mistakes) check(path string, err error) {
	if err != nil {
		m.add(path, err.Error())
	}
}

func each(m *mistakes, path string, list []string, check func(string) error) {
	for i, one := range list {
		m.check(fmt.Sprintf("%s[%d]", path, i), check(one))
	}
}
