package notifier

// HasData reports whether an account has records of images.
func (n *Notifier) HasData(did string) (bool, error) {
	page, err := n.usage.Manifests(did, "", 1)
	return len(page) > 0, err
}
