"""Create the bucket that S3_BUCKET names if it does not exist; a service of compose.yaml runs this once."""

import os
import sys
from collections.abc import Mapping


def create_bucket(name: str, env: Mapping[str, str]) -> bool:
    """Whether the bucket was created now; `env` has the endpoint, credentials and region."""
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.client(
        "s3",
        endpoint_url=env.get("AWS_ENDPOINT_URL"),
        aws_access_key_id=env.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=env.get("AWS_SECRET_ACCESS_KEY"),
        region_name=env.get("AWS_DEFAULT_REGION"),
    )
    try:
        client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        client.create_bucket(Bucket=name)
        return True
    finally:
        client.close()
    return False


if __name__ == "__main__":
    bucket = os.environ.get("S3_BUCKET") or sys.exit("error: S3_BUCKET names the bucket")
    print(f"{bucket}: {'created' if create_bucket(bucket, os.environ) else 'exists'}")
