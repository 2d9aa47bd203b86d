// Package config has all options of Tidings, with their names, defaults and
// documentation.
//
// It parses the `options:` of the registry's configuration strictly: an unknown key,
// a value of the wrong type and contradicting options are errors, which are
// reported all at once, each with its path. The rule for a value is that of the
// package that uses it, which config asks. It opens no files, except in
// Redis.Client and API.CheckToken.
//
// The configuration files in this folder work as they are.
package config

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/tidings-dev/tidings/atproto/auth"
	"github.com/tidings-dev/tidings/internal/private"
	"github.com/tidings-dev/tidings/notifier/classify"
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/statsrecords"
)

// Options are the `options:` of the registry's middleware.repository entry named
// tidings. A section that is a pointer is nil if it is not given: no hold, no
// announcements, no Redis.
type Options struct {
	// Enabled false leaves the registry as it is without Tidings. The registry ignores
	// `disabled: true` of a middleware entry; FromRegistry sets this to false for it.
	// Default true.
	Enabled bool `option:"enabled"`

	// Data is the folder of the journal, the counters, the embedded hold and its
	// key. One process at a time can use it. Required.
	Data string `option:"data"`

	// Public lists globs of the public repositories, which appear in records, posts and
	// anonymous answers of the API. `*` does not match a slash, `**` does. Images of
	// another owner that other registries report are in the repository
	// DID/REPOSITORY: "did:plc:abc/**". See Visible. Default: none.
	Public []string `option:"public"`

	// Hold is the embedded account that records and posts are written to. Default:
	// none; pulls and pushes are only counted.
	Hold *Hold `option:"hold"`

	// Account is an account on another PDS that records and posts are written to. Only
	// one of Hold and Account may be given. Default: none.
	Account *Account `option:"account"`

	// Remote is another hold that pushes are reported to. Only one of Hold, Account and
	// Remote may be given. Default: none.
	Remote *Remote `option:"remote"`

	// Owner is the DID that the images belong to, the userDid of every record.
	// Default: the DID of the hold or the account, or of the sender of remote.
	Owner string `option:"owner"`

	// Owners lists rules for repositories whose images belong to others. The first
	// rule that matches decides, and Owner without one. Default: none.
	Owners []OwnerRule `option:"owners"`

	// Actors are the users of the registry with their accounts.
	Actors Actors `option:"actors"`

	// Quota limits the sizes of owners' images. Default: none.
	Quota *Quota `option:"quota"`

	// Announce posts about pushed tags. `announce: {}` uses the defaults.
	// Default: nothing is announced.
	Announce *Announce `option:"announce"`

	// Stats publishes the counts of public repositories.
	Stats Stats `option:"stats"`

	// Redis sums the counters of several registries. Default: none.
	Redis *Redis `option:"redis"`

	// Reserve is the free disk space below which only the journal is written: counting
	// and publishing are paused. At least 1MiB. Default: hold.reserve, else 1GiB.
	Reserve Size `option:"reserve"`

	// Count classifies requests.
	Count Count `option:"count"`

	// Journal limits pending events on disk.
	Journal Journal `option:"journal"`

	// HTTP configures how the hold and the API are served.
	HTTP HTTP `option:"http"`

	// API is the JSON API over the counters.
	API API `option:"api"`

	warnings []string // of FromRegistry
}

// Hold is an AT Protocol account on the PDS embedded in the registry.
type Hold struct {
	// Hostname is the identity: did:web:<hostname>. A domain without scheme or path
	// that serves https on port 443, or localhost with a port for testing. Required.
	Hostname string `option:"hostname"`

	// KeyFile is the file of the signing key, which `tidings hold init` creates.
	// Default: hold.key in the data folder.
	KeyFile string `option:"key_file"`

	// Login allows the account's owner to log in with the password that `tidings hold
	// password` prints. Default false.
	Login bool `option:"login"`

	// Reserve is the free disk space below which the hold accepts no writes; they stay
	// pending in the journal. At least 1MiB. Default: Options.Reserve.
	Reserve Size `option:"reserve"`

	// Relays are asked to crawl the hold, at start and when there are new commits after
	// a while: "https://bsky.network". With https, or on this machine. Without a relay
	// the network does not see the account. Default: none.
	Relays []string `option:"relays"`

	// Registries are the DIDs of other registries that may report pushes and pulls to
	// this hold with io.atcr.hold.notifyManifest, for images of any owner. They are
	// trusted. Default: none.
	Registries []string `option:"registries"`

	// Owners are the DIDs of accounts that may report pushes of their own images, and
	// pulls of any image. Default: none.
	Owners []string `option:"owners"`

	// Pulls says who else may report pulls: with "anyone" each account with a valid
	// service token, for images that are known here; with "trusted" none. Default
	// trusted.
	Pulls string `option:"pulls"`

	// Audiences are accepted in service tokens, besides our DID and its services: DIDs,
	// or IDs of their services such as "did:web:old.example.com#atcr_hold". Default:
	// none.
	Audiences []string `option:"audiences"`

	// PLC is the URL of the directory of did:plc, at which the senders of notifications
	// and the owners of images are resolved. Default: the public one.
	PLC string `option:"plc"`

	// DisplayName is the name in the account's profile, at most 64 graphemes. `tidings
	// hold init` writes it. Default: the hostname.
	DisplayName string `option:"display_name"`

	// Description is the text of the account's profile, at most 256 graphemes. Default:
	// none.
	Description string `option:"description"`

	// Avatar is the picture of the account's profile: a PNG or JPEG file of at most
	// 1,000,000 bytes. `tidings hold init` writes it. Default: none.
	Avatar string `option:"avatar"`

	// MovedTo is set if the account has moved to another host: did.json shows that
	// host, and nothing is written here. Once it is removed, the account is back.
	// Default: the account is here.
	MovedTo *MovedTo `option:"moved_to"`
}

// Notified reports whether others may notify the hold.
func (h *Hold) Notified() bool {
	return len(h.Registries) > 0 || len(h.Owners) > 0 || h.Pulls == string(auth.PullsAnyone)
}

// MovedTo is the new host of an account that has moved.
type MovedTo struct {
	// Service is the URL of the new host, "https://pds.example.com". http is only
	// allowed on this machine. Required.
	Service string `option:"service"`

	// Key is the public key that the new host signs with, in multibase, "zQ3sh…", or as
	// "did:key:zQ3sh…". Default: the hold's own key, which the new host uses.
	Key string `option:"key"`
}

// Stats publishes the counts of public repositories.
type Stats struct {
	// Records is the interval at which counts that have changed are written to the
	// account, as io.atcr.hold.stats records. At least 1m, or off. Default 6h.
	Records DurationOrOff `option:"records"`
}

// Count classifies requests.
type Count struct {
	// IgnoreUserAgents lists patterns of the user agents whose requests count as
	// `ignored`: scanners, mirrors. `*` matches any characters, including slashes, `?`
	// one byte. Case is ignored. Default: none.
	IgnoreUserAgents []string `option:"ignore_user_agents"`

	// IgnoreActors lists patterns of the registry users whose requests count as
	// `ignored`. Case matters. Default: none.
	IgnoreActors []string `option:"ignore_actors"`

	// HeadWindow is how long a HEAD of a tag is remembered: a GET of its digest by the
	// same client counts as a pull of that tag. A push is remembered as long: a GET of
	// its digest by the client that pushed it is ignored. Default 10s.
	HeadWindow time.Duration `option:"head_window"`
}

// Journal limits pending events on disk.
type Journal struct {
	// Segment is the size of a file after which a new one begins. Default 16MiB.
	Segment Size `option:"segment"`

	// Limit is the size of pending events of pushes and, separately, of pulls; the files
	// have at most twice that size. At the limit the oldest events of the slowest reader
	// are dropped. Default 1GiB.
	Limit Size `option:"limit"`

	// Wait limits how long a push waits for the disk before it is answered 503. Default
	// 10s.
	Wait time.Duration `option:"wait"`
}

// HTTP configures how the hold and the API are served.
type HTTP struct {
	// Addr is the address of a separate listener, host:port. Default: the registry's
	// port.
	Addr string `option:"addr"`

	// ClientHeader is the header in which a proxy in front of the hold and the API sends
	// the client's address: "X-Forwarded-For". Without it all clients of the proxy
	// share the limits of one client. Default: none.
	ClientHeader string `option:"client_header"`

	// Proxies lists the addresses and networks whose ClientHeader is trusted. Default:
	// this machine, 127.0.0.0/8 and ::1.
	Proxies []string `option:"proxies"`
}

// API is the JSON API over the counters.
type API struct {
	// TokenFile is the file of the bearer token that shows private repositories as
	// well, which no other user may be able to change. Default: none; only public
	// repositories are shown.
	TokenFile string `option:"token_file"`
}

// CheckToken returns an error if there is a token file and it cannot be used.
func (a *API) CheckToken() error {
	if a.TokenFile == "" {
		return nil
	}
	if _, err := private.ReadFile(a.TokenFile); err != nil {
		return fmt.Errorf("options.api.token_file: %w", err)
	}
	return nil
}

// defaults returns the values of options that are not given.
func defaults() *Options {
	return &Options{
		Enabled: true,
		Reserve: unset,
		Stats:   Stats{Records: DurationOrOff(statsrecords.DefaultInterval)},
		Count:   Count{HeadWindow: classify.DefaultHeadWindow},
		Journal: Journal{Segment: journal.DefaultSegmentSize, Limit: journal.DefaultLimit, Wait: journal.DefaultWait},
		HTTP:    HTTP{Proxies: []string{"127.0.0.0/8", "::1"}},
	}
}

func (h *Hold) defaults() { h.Reserve, h.Pulls = unset, string(auth.PullsTrusted) }

// Private returns the files and folders in the data folder to which other users must not have
// access.
func (o *Options) Private() []string {
	return []string{
		o.JournalDir(), o.StateDir(), o.HoldDir(), o.CollectedDir(), o.LockFile(), o.AccountFile(), o.PasswordFile(), o.PasswordFile() + ".sessions",
		filepath.Join(o.Data, HoldKey), filepath.Join(o.Data, RemoteKey),
	}
}

// Names of the keys in the data folder, and in backups.
const (
	HoldKey   = "hold.key"
	RemoteKey = "remote.key"
)

// Paths in the data folder.
func (o *Options) JournalDir() string   { return filepath.Join(o.Data, "journal") }
func (o *Options) StateDir() string     { return filepath.Join(o.Data, "state") }
func (o *Options) HoldDir() string      { return filepath.Join(o.Data, "hold") }
func (o *Options) CollectedDir() string { return filepath.Join(o.Data, "collected") }
func (o *Options) PasswordFile() string { return filepath.Join(o.Data, "hold.password") }
func (o *Options) LockFile() string     { return filepath.Join(o.Data, "lock") }

// KeyFile returns the path of the hold's signing key: hold.key_file, or hold.key in
// the data folder.
func (o *Options) KeyFile() string {
	if o.Hold != nil && o.Hold.KeyFile != "" {
		return o.Hold.KeyFile
	}
	return filepath.Join(o.Data, HoldKey)
}
