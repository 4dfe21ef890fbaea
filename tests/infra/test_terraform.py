"""Rules of the bucket and its roles, read as text: no parser of HCL is among the pinned packages."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "infra" / "terraform"
TEXT = {file.stem: file.read_text() for file in FOLDER.glob("*.tf")}


def block(text: str, head: str) -> str:
    """What stands between a head's braces; they are indented as `terraform fmt` leaves them."""
    found = re.search(rf"^{re.escape(head)} \{{\n(.*?)^\}}", text, flags=re.DOTALL | re.MULTILINE)
    assert found is not None, head
    return found[1]


def test_the_bucket_is_private_versioned_and_encrypted() -> None:
    text = TEXT["bucket"]
    closed = block(text, 'resource "aws_s3_bucket_public_access_block" "store"')
    assert closed.count("= true") == 4
    assert '"Enabled"' in block(text, 'resource "aws_s3_bucket_versioning" "store"')
    encryption = 'resource "aws_s3_bucket_server_side_encryption_configuration" "store"'
    assert '"aws:kms"' in block(text, encryption)
    assert "prevent_destroy = true" in block(text, 'resource "aws_s3_bucket" "store"')
    assert "enable_key_rotation     = true" in block(text, 'resource "aws_kms_key" "bucket"')
    policy = block(text, 'data "aws_iam_policy_document" "store"')
    assert 'effect    = "Deny"' in policy
    assert '"aws:SecureTransport"' in policy


def test_a_role_has_access_to_its_prefixes_only() -> None:
    text = TEXT["roles"]
    rights = block(text, 'data "aws_iam_policy_document" "prefixes"')
    actions = set(re.findall(r'"((?:s3|kms):\w+)"', rights)) - {"s3:prefix"}
    assert actions == {
        "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject",
        "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "kms:Decrypt", "kms:GenerateDataKey",
    }  # fmt: skip
    assert '"*"' not in rights
    trust = block(text, 'data "aws_iam_policy_document" "trust"')
    assert ":sub" in trust
    assert ":aud" in trust
    assert "StringLike" not in trust


def test_versions_are_bounded_and_nothing_is_secret() -> None:
    assert re.search(r'version = "~> \d+\.0"', TEXT["versions"])
    for name, text in TEXT.items():
        assert not re.search(r"AKIA[0-9A-Z]{16}|access_key|secret_key", text), name
