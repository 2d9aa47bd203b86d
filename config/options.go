package config

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/tidings-dev/tidings/internal/private"
	"github.com/tidings-dev/tidings/notifier/counter"
	"github.com/tidings-dev/tidings/notifier/journal"
)

// Options is what stands under `options:` of the registry's
// middleware.repository entry named tidings. A section that is a pointer is nil
// when it was not given: no hold, nothing announced, no Redis.
type Options struct {
	// Enabled false leaves the registry as it is without Tidings. The registry
	// itself never reads `disabled: true` of a middleware entry; FromRegistry
	// does, and sets this to false. Default true.
	Enabled bool `option:"enabled"`

	// Data is the folder of the journal, the counters, the embedded hold and its
	// key. One process uses it at a time. Required.
	Data string `option:"data"`

	// Public lists globs of the repositories that may be seen: in records, posts
	// and anonymous answers of the API. `*` stops at a slash, `**` does not. What
	// other registries tell of another owner is called DID/REPOSITORY:
	// "did:plc:abc/**". See Visible. Default: none.
	Public []string `option:"public"`

	// Hold is the embedded repository that records and posts are written to.
	// Default: none, and pulls and pushes are counted only.
	Hold *Hold `option:"hold"`

	// Owner is the DID whose images these are, the userDid of every record.
	// Default: the hold's own DID.
	Owner string `option:"owner"`

	// Announce posts about pushed tags. `announce: {}` takes the defaults.
	// Default: nothing is announced.
	Announce *Announce `option:"announce"`

	// Redis sums the counters of several registries. Default: none.
	Redis *Redis `option:"redis"`

	// Reserve is the free disk space below which nothing is written but the
	// journal: counting and publishing wait there. At least 1MiB. Default: what
	// hold.reserve says, else 1GiB.
	Reserve Size `option:"reserve"`

	// Count says what is a pull.
	Count Count `option:"count"`

	// Journal bounds what waits on disk.
	Journal Journal `option:"journal"`

	// HTTP says where the hold and the API are served.
	HTTP HTTP `option:"http"`

	// API is the JSON API over the counters.
	API API `option:"api"`

	warnings []string // what FromRegistry saw
}

// Hold is a single-account AT Protocol repository inside the registry.
type Hold struct {
	// Hostname becomes the identity: did:web:<hostname>. A domain without scheme
	// or path that answers https on port 443, or localhost with a port to try
	// things out. Required.
	Hostname string `option:"hostname"`

	// KeyFile holds the signing key, made by `tidings hold init`. Default:
	// hold.key in the data folder.
	KeyFile string `option:"key_file"`

	// Login lets the account's owner log in with the password that `tidings hold
	// password` printed. Default false.
	Login bool `option:"login"`

	// Reserve is the free disk space below which the hold stops taking writes;
	// they wait in the journal. At least 1MiB. Default: Options.Reserve.
	Reserve Size `option:"reserve"`

	// Relays are asked to crawl the hold, at start and when there is news after
	// a while: "https://bsky.network". On https, or on this machine. Without one
	// nobody on the network hears of the account. Default: none.
	Relays []string `option:"relays"`

	// Registries are the DIDs of other registries that may tell this hold what is
	// pushed to them and pulled from them, by io.atcr.hold.notifyManifest, whoever
	// owns the images. They are believed. Default: none.
	Registries []string `option:"registries"`

	// Owners are the DIDs of accounts that may tell the same of images of their
	// own. Default: none.
	Owners []string `option:"owners"`

	// DisplayName stands in the account's profile, at most 64 graphemes. It is
	// written by `tidings hold init`. Default: the hostname.
	DisplayName string `option:"display_name"`

	// Description stands in the account's profile, at most 256 graphemes. Default:
	// none.
	Description string `option:"description"`

	// Avatar is a picture for the account's profile: a PNG or JPEG file of at most
	// 1,000,000 bytes. It is written by `tidings hold init`. Default: none.
	Avatar string `option:"avatar"`

	// MovedTo is given when the account has moved to another host: did.json shows
	// that one, and nothing is written here any more. Without it again, the account
	// is back. Default: the account is here.
	MovedTo *MovedTo `option:"moved_to"`
}

// MovedTo is where an account is that was here before.
type MovedTo struct {
	// Service is the address of its new host, "https://pds.example.com". http only
	// on this machine. Required.
	Service string `option:"service"`

	// Key is the public key that the new host signs with, as that shows it: in
	// multibase, "zQ3sh…", or as "did:key:zQ3sh…". Default: the hold's own, which
	// has moved along.
	Key string `option:"key"`
}

// Announce says which pushes become a post.
type Announce struct {
	// Tags lists globs of the tags that are announced. Default: version tags,
	// which are three numbers with or without a v: v1.2.3, 1.2.3. See Match.
	Tags []string `option:"tags"`

	// Collect is how long the tags of one image are gathered for one post. 0
	// posts at once. Default 20s.
	Collect time.Duration `option:"collect"`

	// MaxAge is the age at which a push that could not be announced yet is left
	// out. Default 1h.
	MaxAge time.Duration `option:"max_age"`

	// Retags announces a later tag of an image that was announced before. Default:
	// only a release that follows its own pre-release, v1.0.0 after v1.0.0-rc.1.
	Retags bool `option:"retags"`

	// Link is the address a post points to, a template over Repository, Tag and
	// Digest: "https://example.com/{{.Repository}}". A post whose address is not
	// valid goes out without it. Default: none.
	Link string `option:"link"`

	// Langs are the languages a post says it is in, BCP 47, at most three.
	// Default en.
	Langs []string `option:"langs"`

	// AnonymousPushes accepts that anyone who reaches this registry can make the
	// account post. Needed when the registry has no `auth:` and others than this
	// machine reach it: at its address, or through a proxy that leads to
	// hold.hostname. Default false.
	AnonymousPushes bool `option:"anonymous_pushes"`
}

// Count says what is a pull and what is not.
type Count struct {
	// IgnoreUserAgents lists patterns of the user agents whose requests count as
	// `ignored`: scanners, mirrors. `*` is anything, slashes too, `?` one
	// character, and capitals are as good as small letters. Default: none.
	IgnoreUserAgents []string `option:"ignore_user_agents"`

	// IgnoreActors lists patterns of the registry users whose requests count as
	// `ignored`; capitals matter. Default: none.
	IgnoreActors []string `option:"ignore_actors"`

	// HeadWindow is how long a HEAD of a tag is remembered: a GET by digest from
	// the same client within it is a pull of that tag. A push is remembered as long:
	// a GET by digest from the client that pushed it is ignored. Default 10s.
	HeadWindow time.Duration `option:"head_window"`
}

// Journal bounds what waits on disk.
type Journal struct {
	// Segment is the size after which a new file begins. Default 16MiB.
	Segment Size `option:"segment"`

	// Limit is what the events of pushes, and separately of pulls, may take on
	// disk; with all that belongs to them it is never more than twice as much. At
	// the limit the slowest reader gives up its oldest events. Default 1GiB.
	Limit Size `option:"limit"`

	// Wait is the longest a push waits for the disk before it gets a 503. Default
	// 10s.
	Wait time.Duration `option:"wait"`
}

// HTTP says where the hold and the API are served, and who asks them.
type HTTP struct {
	// Addr is a listener of its own, host:port. Default: the registry's port.
	Addr string `option:"addr"`

	// ClientHeader is the header in which a proxy in front of the hold and the API
	// writes the client's address: "X-Forwarded-For". Without it all clients of
	// the proxy share what one client gets of places, logins and subscriptions.
	// Default: none.
	ClientHeader string `option:"client_header"`

	// Proxies lists the addresses and networks whose ClientHeader is believed.
	// Default: this machine, 127.0.0.0/8 and ::1.
	Proxies []string `option:"proxies"`
}

// API is the JSON API over the counters.
type API struct {
	// TokenFile holds the bearer token that shows every repository, not only the
	// public ones. Only its owner may read it. Default: none, and nobody sees more
	// than the public ones.
	TokenFile string `option:"token_file"`
}

// CheckToken says what is wrong with the token file, if there is one.
func (a *API) CheckToken() error {
	if a.TokenFile == "" {
		return nil
	}
	if _, err := private.ReadFile(a.TokenFile); err != nil {
		return fmt.Errorf("options.api.token_file: %w", err)
	}
	return nil
}

// defaults is what a field has when its option is not given.
func defaults() *Options {
	return &Options{
		Enabled: true,
		Reserve: unset,
		Count:   Count{HeadWindow: counter.DefaultHeadWindow},
		Journal: Journal{Segment: journal.DefaultSegmentSize, Limit: journal.DefaultLimit, Wait: journal.DefaultWait},
		HTTP:    HTTP{Proxies: []string{"127.0.0.0/8", "::1"}},
	}
}

func (h *Hold) defaults() { h.Reserve = unset }

func (a *Announce) defaults() {
	a.Collect = 20 * time.Second
	a.MaxAge = time.Hour
	a.Langs = []string{"en"}
}

// Private are the files and folders that are made for their owner alone, but for
// those of secrets, which are refused if they are open to others.
func (o *Options) Private() []string {
	return []string{o.JournalDir(), o.StateDir(), o.HoldDir(), o.CollectedDir(), o.PasswordFile() + ".sessions", o.LockFile()}
}

// The places inside the data folder.
func (o *Options) JournalDir() string   { return filepath.Join(o.Data, "journal") }
func (o *Options) StateDir() string     { return filepath.Join(o.Data, "state") }
func (o *Options) HoldDir() string      { return filepath.Join(o.Data, "hold") }
func (o *Options) CollectedDir() string { return filepath.Join(o.Data, "collected") }
func (o *Options) PasswordFile() string { return filepath.Join(o.Data, "hold.password") }
func (o *Options) LockFile() string     { return filepath.Join(o.Data, "lock") }

// KeyFile is where the hold's signing key is: hold.key_file, or hold.key in the
// data folder.
func (o *Options) KeyFile() string {
	if o.Hold != nil && o.Hold.KeyFile != "" {
		return o.Hold.KeyFile
	}
	return filepath.Join(o.Data, "hold.key")
}
